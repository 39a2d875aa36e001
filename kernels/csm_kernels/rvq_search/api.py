"""rvq_search: the call, its checks and its registration with torch.library. reference.py specifies it."""

from typing import NamedTuple

import torch
from torch import Tensor

from csm_kernels.dispatch import choose
from csm_kernels.precision import exact_products
from csm_kernels.rvq_search import blocked, cpu, reference


class RVQSearchResult(NamedTuple):
    """Outputs of the search; none has a gradient.

    Attributes:
        codes: Chosen code at each level, int64 [N, Q] in [0, V).
        quantized: Sum of the chosen codes' vectors, [N, D].
        residual: Difference of x and the sum, taken level by level, [N, D].
        commitment: Mean over rows and width of the squared residual after each level, [Q].
    """

    codes: Tensor
    quantized: Tensor
    residual: Tensor
    commitment: Tensor


def rvq_search(
    x: Tensor, codebooks: Tensor, *, mask: Tensor | None = None, impl: str = "auto"
) -> RVQSearchResult:
    """Quantizes each row by the nearest code of each level in turn, applied to the last level's residual.

    Level q chooses argmin over v of 0.5 |c_v|^2 - r . c_v, the nearest code in Euclidean distance; of equal
    scores the lowest index. The search runs in fp32 (float64 for float64 input), also under autocast and with
    TF32 switched on, and a row's codes are bit-identical for any batch size, order and number of threads.

    It has no gradient: the choice of a code has none. The caller writes the straight-through estimator,
    `x + (quantized - x).detach()`, and, where it trains the encoder towards the codes, its own commitment
    loss from x and the returned codes; `commitment` here is a measurement.

    Args:
        x: Rows [N, D] of any float dtype (read as fp32 unless float64). N may be 0.
        codebooks: Codebooks [Q, V, D], fp32 (or float64 with a float64 x).
        mask: False on padding rows, bool [N]: they are coded, but do not count in `commitment`.
        impl: Implementation: "auto" (by device), "triton", "cpu", "blocked" or "reference".

    Returns:
        RVQSearchResult in fp32 (float64 for a float64 x).

    Raises:
        ValueError: A shape, dtype, device or impl does not fit; the message names it.
    """
    if x.dim() != 2 or not x.is_floating_point():
        raise ValueError(
            f"x: expected a float tensor [N, D], got {x.dtype} {tuple(x.shape)}; flatten to rows"
        )
    if codebooks.dim() != 3 or min(codebooks.shape) < 1:
        raise ValueError(
            f"codebooks: expected [Q, V, D] without empty dimension, got {tuple(codebooks.shape)}"
        )
    if codebooks.shape[2] != x.shape[1]:
        raise ValueError(f"codebooks: width {codebooks.shape[2]} differs from x's width {x.shape[1]}")
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    if codebooks.dtype != dtype:
        raise ValueError(
            f"codebooks: expected {dtype} beside x of {x.dtype}, got {codebooks.dtype}; "
            "keep codebooks in fp32"
        )
    if codebooks.device != x.device:
        raise ValueError(f"codebooks: on {codebooks.device}, x on {x.device}; move them to one device")
    if mask is not None and (
        mask.shape != x.shape[:1] or mask.dtype != torch.bool or mask.device != x.device
    ):
        raise ValueError(
            f"mask: expected bool [{x.shape[0]}] on {x.device}, got {mask.dtype} {tuple(mask.shape)} "
            f"on {mask.device}"
        )
    return RVQSearchResult(*_rvq_search(x.detach().to(dtype), codebooks.detach(), mask, impl))


@torch.library.custom_op("csm::rvq_search", mutates_args=())
def _rvq_search(
    x: Tensor, codebooks: Tensor, mask: Tensor | None, impl: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    chosen = choose(impl, x.device, x.dtype)  # here, where torch.compile does not look
    if chosen == "cpu":
        return cpu.search(x, codebooks, mask)
    if chosen == "triton":
        from csm_kernels.rvq_search import triton_kernel

        return triton_kernel.search(x, codebooks, mask)
    with exact_products(x.device):
        return (reference if chosen == "reference" else blocked).search(x, codebooks, mask)


@_rvq_search.register_fake
def _(x: Tensor, codebooks: Tensor, mask: Tensor | None, impl: str) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    levels = codebooks.shape[0]
    codes = x.new_empty(x.shape[0], levels, dtype=torch.int64)
    return codes, x.new_empty(x.shape), x.new_empty(x.shape), x.new_empty(levels)
