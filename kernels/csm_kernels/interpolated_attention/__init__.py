"""interpolated_attention: attention to resampled keys and values. Read reference.py first."""

from csm_kernels.interpolated_attention.api import interpolated_attention

__all__ = ["interpolated_attention"]
