"""Flash attention over sequences packed end to end, where a GPU has it.

torch's own kernel (`torch.nn.attention.varlen`) first, flash-attn's second.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Band = tuple[int, int]
"""Numbers of keys to the left and right that a query attends to, sequences aligned at their ends; -1: all."""
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, int, int, Band], Tensor]
HALF = torch.float16, torch.bfloat16


def _of_torch() -> Kernel | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # before torch 2.10
        return None
    if not {"window_size", "enable_gqa"} <= set(inspect.signature(varlen_attn).parameters):
        return None

    def attend(
        q: Tensor, k: Tensor, v: Tensor, ends_q: Tensor, ends_k: Tensor, most_q: int, most_k: int, band: Band
    ) -> Tensor:
        grouped = q.shape[1] != k.shape[1]
        out = varlen_attn(q, k, v, ends_q, ends_k, most_q, most_k, window_size=band, enable_gqa=grouped)
        assert isinstance(out, Tensor)  # no auxiliary output was asked for
        return out

    return attend


def _of_flash_attn() -> Kernel | None:
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        return None

    def attend(
        q: Tensor, k: Tensor, v: Tensor, ends_q: Tensor, ends_k: Tensor, most_q: int, most_k: int, band: Band
    ) -> Tensor:
        exact = torch.are_deterministic_algorithms_enabled()  # else the backward adds by atomics
        options = {"causal": band == (-1, 0), "window_size": band, "deterministic": exact}
        return flash_attn_varlen_func(q, k, v, ends_q, ends_k, most_q, most_k, **options)

    return attend


KERNEL = _of_torch() or _of_flash_attn()


def kernel_for(q: Tensor) -> Kernel | None:
    """Returns the kernel that attends for queries like q [R, N, H], or None."""
    if KERNEL is None or not q.is_cuda or q.dtype not in HALF or q.shape[2] % 8 or q.shape[2] > 256:
        return None
    modern = torch.version.hip is not None or torch.cuda.get_device_capability(q.device) >= (8, 0)
    return KERNEL if modern else None


def band_of(queries: Sequence[int], keys: Sequence[int], first_place: int, window: int | None) -> Band | None:
    """Returns the band in which query i of every sequence sees the keys near place i + first_place.

    Args:
        queries: Number of queries of each sequence.
        keys: Number of keys of each sequence.
        first_place: Place of the first query among its sequence's keys.
        window: Keys to each side of its place that a query sees; None: all.

    Returns:
        None where no one band does so for all sequences.
    """
    if window is None:
        return -1, -1
    shifts = {k - q - first_place for q, k in zip(queries, keys, strict=True) if q}
    if len(shifts) != 1:
        return None
    shift = shifts.pop()
    return (window + shift, window - shift) if abs(shift) <= window else None
