"""interpolated_attention: the call, its checks and its registration with torch.library.

reference.py specifies it.
"""

from typing import Any

import torch
from torch import Tensor

from csm_kernels.dispatch import choose
from csm_kernels.interpolated_attention import blocked, cpu, reference, tiles
from csm_kernels.precision import exact_products


def interpolated_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    lengths: Tensor | None = None,
    query_offsets: Tensor | None = None,
    window: int | None = None,
    scale: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """Attends to keys and values resampled to the queries' time axis, for packed sequences of any lengths.

    Per sequence, with Tk its keys and L its resampled length,
        K', V' = F.interpolate(K or V, size=L, mode="linear", align_corners=False)
        O_i = softmax over j of (scale q_i . K'_j) V'_j,   over |query_offset + i - j| <= window.
    Rotary embedding and normalisation of keys belong before this call. A query that sees no position
    (its window lies outside [0, L), or the sequence has no keys) gives 0 and gets gradient 0.

    Products are fp32 for half-precision inputs (float64 for float64). Under autocast q, k and v are first
    cast to its dtype, as scaled_dot_product_attention does. Two runs give the same bits; only impl="blocked"
    on CUDA sums the gradients of k and v by atomics unless torch.use_deterministic_algorithms(True).

    Args:
        q: Queries of all sequences one after another, [total_q, H, d].
        k, v: Keys and values of all sequences, [total_k, H, d].
        cu_seqlens_q: 0, then the end of each sequence's queries, int32 or int64 [sequences + 1].
        cu_seqlens_k: The same for keys.
        lengths: Resampled lengths L, integers [sequences]. None: each sequence's number of queries.
        query_offsets: Positions of the first queries (incremental decoding), integers >= 0 [sequences].
            None: 0.
        window: Positions on either side that a query attends to, >= 0. None: all.
        scale: Factor of the logits. None: 1 / sqrt(d).
        impl: Implementation: "auto" (by device), "triton", "cpu", "blocked" or "reference".

    Returns:
        Outputs [total_q, H, d] in q's dtype, differentiable once in q, k and v.

    Raises:
        ValueError: A shape, dtype, device or option does not fit, or (read on CPU only) cu_seqlens, lengths
            or query_offsets hold wrong values; the message names it.
    """
    _check(q, k, v, cu_seqlens_q, cu_seqlens_k, lengths, query_offsets, window)
    if torch.is_autocast_enabled(q.device.type) and q.dtype != torch.float64:
        dtype = torch.get_autocast_dtype(q.device.type)
        q, k, v = q.to(dtype), k.to(dtype), v.to(dtype)
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(
            f"k and v: expected {q.dtype} as q, got {k.dtype} and {v.dtype}; cast them to one dtype"
        )
    bounds_q, bounds_k = cu_seqlens_q.long().contiguous(), cu_seqlens_k.long().contiguous()
    length = bounds_q[1:] - bounds_q[:-1] if lengths is None else lengths.long().contiguous()
    offset = torch.zeros_like(length) if query_offsets is None else query_offsets.long().contiguous()
    factor = q.shape[2] ** -0.5 if scale is None else scale
    if impl == "reference":
        _check_values(q, k, bounds_q, bounds_k, length, offset)
        with torch.autocast(q.device.type, enabled=False):
            return reference.attend(q, k, v, bounds_q, bounds_k, length, offset, window, factor)
    return _interpolated_attention(q, k, v, bounds_q, bounds_k, length, offset, window, factor, impl)[0]


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    lengths: Tensor | None,
    query_offsets: Tensor | None,
    window: int | None,
) -> None:
    if q.dim() != 3 or not q.is_floating_point():
        raise ValueError(f"q: expected a float tensor [total_q, H, d], got {q.dtype} {tuple(q.shape)}")
    for name, tensor in {"k": k, "v": v}.items():
        if tensor.dim() != 3 or tensor.shape[1:] != q.shape[1:] or not tensor.is_floating_point():
            raise ValueError(
                f"{name}: expected a float tensor [total_k, {q.shape[1]}, {q.shape[2]}], "
                f"got {tensor.dtype} {tuple(tensor.shape)}"
            )
    if k.shape[0] != v.shape[0]:
        raise ValueError(f"v: {v.shape[0]} rows, k has {k.shape[0]}; every key needs its value")
    if cu_seqlens_q.dim() != 1 or cu_seqlens_q.shape[0] < 1:
        raise ValueError(f"cu_seqlens_q: expected [sequences + 1], got {tuple(cu_seqlens_q.shape)}")
    sequences = cu_seqlens_q.shape[0] - 1
    indices = {
        "cu_seqlens_q": (cu_seqlens_q, sequences + 1),
        "cu_seqlens_k": (cu_seqlens_k, sequences + 1),
        "lengths": (lengths, sequences),
        "query_offsets": (query_offsets, sequences),
    }
    for name, (index, size) in indices.items():
        if index is None:
            continue
        if index.dtype not in (torch.int32, torch.int64) or index.shape != (size,):
            raise ValueError(
                f"{name}: expected int32 or int64 [{size}] for {sequences} sequences, "
                f"got {index.dtype} {tuple(index.shape)}"
            )
    for name, other in {"k": k, "v": v, **{name: pair[0] for name, pair in indices.items()}}.items():
        if other is not None and other.device != q.device:
            raise ValueError(f"{name}: on {other.device}, q on {q.device}; move them to one device")
    if window is not None and window < 0:
        raise ValueError(f"window: expected None or a number >= 0, got {window}")


def _check_values(
    q: Tensor, k: Tensor, bounds_q: Tensor, bounds_k: Tensor, lengths: Tensor, offsets: Tensor
) -> None:
    """Reads the index tensors; on CUDA that would stop the device, so there it is left out."""
    if q.device.type != "cpu":
        return
    for name, bounds, total in (
        ("cu_seqlens_q", bounds_q, q.shape[0]),
        ("cu_seqlens_k", bounds_k, k.shape[0]),
    ):
        values = bounds.tolist()
        if values != sorted(values) or values[0] != 0 or values[-1] != total:
            raise ValueError(f"{name}: expected to rise from 0 to {total}, got {_short(values)}")
    for name, index in (("lengths", lengths), ("query_offsets", offsets)):
        if index.numel() and int(index.min()) < 0:
            raise ValueError(f"{name}: expected numbers >= 0, got {_short(index.tolist())}")


def _short(values: list[int]) -> str:
    return f"{values[:8]}" if len(values) <= 8 else f"{values[:4]} ... {values[-4:]}"


def _implementation(impl: str, q: Tensor) -> Any:
    chosen = choose(impl, q.device, q.dtype, triton_fits=tiles.supports(q.dtype, q.shape[2]))
    if chosen == "triton":
        from csm_kernels.interpolated_attention import triton_kernel

        return triton_kernel
    return cpu if chosen == "cpu" else blocked


@torch.library.custom_op("csm::interpolated_attention", mutates_args=())
def _interpolated_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds_q: Tensor,
    bounds_k: Tensor,
    lengths: Tensor,
    offsets: Tensor,
    window: int | None,
    scale: float,
    impl: str,
) -> tuple[Tensor, Tensor]:
    _check_values(q, k, bounds_q, bounds_k, lengths, offsets)
    with exact_products(q.device):
        attend = _implementation(impl, q).attend
        return attend(q, k, v, bounds_q, bounds_k, lengths, offsets, window, scale)


@_interpolated_attention.register_fake
def _(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds_q: Tensor,
    bounds_k: Tensor,
    lengths: Tensor,
    offsets: Tensor,
    window: int | None,
    scale: float,
    impl: str,
) -> tuple[Tensor, Tensor]:
    dtype = torch.float64 if q.dtype == torch.float64 else torch.float32
    return q.new_empty(q.shape), q.new_empty(q.shape[:2], dtype=dtype)


@torch.library.custom_op("csm::interpolated_attention_backward", mutates_args=())
def _interpolated_attention_backward(
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
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    with exact_products(q.device):
        attend_backward = _implementation(impl, q).attend_backward
        return attend_backward(
            gradient, output, lse, q, k, v, bounds_q, bounds_k, lengths, offsets, window, scale
        )


@_interpolated_attention_backward.register_fake
def _(
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
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    *tensors, ctx.window, ctx.scale, ctx.impl = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(*output, *tensors)


def _backward(ctx: Any, gradient: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    gradients = _interpolated_attention_backward(
        gradient, *ctx.saved_tensors, ctx.window, ctx.scale, ctx.impl
    )
    return *gradients, None, None, None, None, None, None, None


_interpolated_attention.register_autograd(_backward, setup_context=_setup_context)
