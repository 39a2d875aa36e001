"""rvq_search: nearest code at each level of a residual quantizer. Read reference.py first."""

from csm_kernels.rvq_search.api import RVQSearchResult, rvq_search

__all__ = ["RVQSearchResult", "rvq_search"]
