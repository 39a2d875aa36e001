"""depth_frame: the call and its checks. reference.py is the specification."""

from typing import NamedTuple

import torch
from torch import Tensor

from csm_kernels.depth_frame import cpu, reference
from csm_kernels.depth_frame.weights import DepthWeights
from csm_kernels.dispatch import choose
from csm_kernels.precision import exact_products


class DepthFrame(NamedTuple):
    """Codes of one frame.

    Attributes:
        codes: Codes int64 [K]: code 0 as given, the others as drawn.
        logits: Logits [K - 1, V] of codes 1..K-1, including codes that may not be drawn; None without
            `with_logits`.
    """

    codes: Tensor
    logits: Tensor | None


def depth_frame(
    hidden: Tensor,
    code: int,
    weights: DepthWeights,
    *,
    drawn: int | None = None,
    temperature: float = 0.0,
    top_k: int = 0,
    uniforms: Tensor | None = None,
    with_logits: bool = False,
    impl: str = "auto",
) -> DepthFrame:
    """Draws codes 1..K-1 of a frame one after the other, each from the logits at its position.

    Position 0 reads `hidden`, position k the embedding of code k - 1 (or, with cumulative weights, the sum of
    `hidden` and all embeddings before it), both through the projection; keys and values of earlier positions
    are cached. The row at position k, normalised, times head k - 1 gives the logits of code k. At temperature
    0 the code is the argmax (of equal logits the lowest code). Above, the top_k largest logits are kept (of
    equal ones the lowest codes), in the order of their codes, and the first is drawn whose weights
    exp(logit / temperature), summed up to it, exceed the uniform number times their total.

    The result has the same bits for any number of threads. It has no gradient, and nothing is kept between
    two calls.

    Args:
        hidden: Row of the backbone before the frame, [D].
        code: Code 0 of the frame.
        weights: Weights in fp32 or their `int8()`; the reference also takes float64.
        drawn: Number of codes that may be drawn, the lowest ones. None: all V.
        temperature: Temperature of the draw; 0 takes the argmax.
        top_k: Number of codes kept for the draw; 0 keeps all.
        uniforms: Random numbers in [0, 1), one per drawn code, float64 [K - 1] on the CPU; required above
            temperature 0.
        with_logits: Whether to return logits.
        impl: "auto" (the compiled kernel for fp32 on a CPU, else plain torch), "cpu" or "reference".

    Raises:
        ValueError: A shape, dtype, device, range or impl does not fit, or logits are NaN or infinite.
    """
    drawn = weights.vocab if drawn is None else drawn
    _check(hidden, code, weights, drawn, temperature, top_k, uniforms)
    chosen = choose(impl, hidden.device, hidden.dtype, triton_fits=False)
    arguments = (hidden.detach(), code, weights, drawn, temperature, top_k, uniforms)
    if chosen == "cpu":
        codes, logits = cpu.draw(*arguments, with_logits=with_logits)
    else:
        with torch.no_grad(), exact_products(hidden.device):
            codes, logits = reference.draw(*arguments)
    if bool((codes < 0).any()):
        raise ValueError("logits hold NaN or rule out every index: the model's weights are damaged")
    return DepthFrame(codes, logits if with_logits else None)


def _check(
    hidden: Tensor,
    code: int,
    weights: DepthWeights,
    drawn: int,
    temperature: float,
    top_k: int,
    uniforms: Tensor | None,
) -> None:
    table, books, vocab = weights.table, weights.books, weights.vocab
    if hidden.shape != table.shape[1:] or hidden.dtype != table.dtype or hidden.device != table.device:
        raise ValueError(
            f"hidden: expected {table.dtype} [{table.shape[1]}] on {table.device} as the weights, got "
            f"{hidden.dtype} {list(hidden.shape)} on {hidden.device}"
        )
    if not 0 <= code < vocab:
        raise ValueError(f"code: expected 0..{vocab - 1}, got {code}")
    if not 0 < drawn <= vocab:
        raise ValueError(f"drawn: expected 1..{vocab}, got {drawn}")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"temperature: expected 0 (greedy) or above, got {temperature}")
    if top_k < 0:
        raise ValueError(f"top_k: expected 0 (all) or above, got {top_k}")
    if temperature == 0:
        return
    if uniforms is None or uniforms.shape != (books - 1,) or uniforms.dtype != torch.float64:
        got = "none" if uniforms is None else f"{uniforms.dtype} {list(uniforms.shape)}"
        raise ValueError(
            f"uniforms: expected float64 [{books - 1}] above temperature 0, got {got}; draw them with "
            "torch.rand"
        )
    low, high = (float(edge) for edge in uniforms.aminmax())
    if uniforms.device.type != "cpu" or not 0 <= low <= high < 1:
        raise ValueError(
            f"uniforms: expected numbers in [0, 1) on the CPU, got {low}..{high} on {uniforms.device}"
        )
