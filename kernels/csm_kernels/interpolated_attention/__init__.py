"""Attention over keys and values resampled to another length."""

from csm_kernels.interpolated_attention.api import interpolated_attention

__all__ = ["interpolated_attention"]
