"""interpolated_attention by the compiled kernels of cpu.cpp; nothing of the resampled length is formed."""

import ctypes

import torch
from torch import Tensor

from csm_kernels.native import integer, kernel, pointer, threads


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds_q: Tensor,
    bounds_k: Tensor,
    lengths: Tensor,
    offsets: Tensor,
    window: int | None,
    scale: float,
    instruction_set: str | None = None,
) -> tuple[Tensor, Tensor]:
    """See `csm_kernels.interpolated_attention`; computes in fp32. instruction_set as in `native.kernel`.

    Returns:
        Output [total_q, H, d] in q's dtype, and the log of the sum of exponentials [total_q, H] fp32.
    """
    inputs = [t.float().contiguous() for t in (q, k, v)]
    output, lse = torch.empty_like(inputs[0]), torch.empty(q.shape[:2], dtype=torch.float32)
    kernel("interpolated_attention", instruction_set)(
        *map(pointer, inputs),
        *_layout(q, bounds_q, bounds_k, lengths, offsets, window, scale),
        *map(pointer, (output, lse)),
    )
    return output.to(q.dtype), lse


def attend_backward(
    gradient: Tensor,
    output: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds_q: Tensor,
    bounds_k: Tensor,
    lengths: Tensor,
    offsets: Tensor,
    window: int | None,
    scale: float,
    instruction_set: str | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from what `attend` returned."""
    inputs = [t.float().contiguous() for t in (gradient, output, lse, q, k, v)]
    results = [torch.empty_like(t) for t in inputs[3:]]
    kernel("interpolated_attention_backward", instruction_set)(
        *map(pointer, inputs),
        *_layout(q, bounds_q, bounds_k, lengths, offsets, window, scale),
        *map(pointer, results),
    )
    dq, dk, dv = (result.to(t.dtype) for result, t in zip(results, (q, k, v), strict=True))
    return dq, dk, dv


def _layout(
    q: Tensor,
    bounds_q: Tensor,
    bounds_k: Tensor,
    lengths: Tensor,
    offsets: Tensor,
    window: int | None,
    scale: float,
) -> list[object]:
    # No index is beyond 2^31 positions: a wider window sees as much.
    reach = -1 if window is None else min(window, 1 << 30)
    sizes = (lengths.shape[0], *q.shape[1:], reach)
    return [
        *map(pointer, (bounds_q, bounds_k, lengths, offsets)),
        *map(integer, sizes),
        ctypes.c_double(scale),
        threads(),
    ]
