"""vocoder_frames: the call and its checks. reference.py is the specification."""

import torch
from torch import Tensor

from csm_kernels.dispatch import choose
from csm_kernels.precision import exact_products
from csm_kernels.vocoder_frames import cpu, reference
from csm_kernels.vocoder_frames.weights import (
    CONDITION,
    HISTORY,
    LONGEST,
    MEMORY,
    SHORTEST,
    STATES,
    SUBFRAMES,
    VocoderState,
    VocoderWeights,
)


def vocoder_frames(
    weights: VocoderWeights,
    conditions: Tensor,
    periods: Tensor,
    state: VocoderState,
    *,
    impl: str = "auto",
) -> tuple[Tensor, VocoderState]:
    """Writes T frames of 10 ms of B streams at 16 kHz by FARGAN's signal network, 40 samples at a time.

    The four subframes of a frame read the samples one period ago, by the period of the frame before (of a
    stream's first frame: by its own). The gain of a subframe is at most 4 times full scale, so samples are
    finite and within 4. De-emphasis is the caller's.

    Samples have the same bits however the frames are cut into calls, alone and in any batch, and for any
    number of threads. They have no gradient.

    Args:
        weights: Weights in fp32; the reference also takes float64.
        conditions: Output of the conditioning network, [B, T, 4, 80]: a vector for every subframe.
        periods: Periods in samples, int64 [B, T], from 32 to 255.
        state: State after the frames before; `VocoderState.silence` at the beginning. It is not changed.
        impl: "auto" (the compiled kernel for fp32 on a CPU, else plain torch), "cpu" or "reference".

    Returns:
        Samples before de-emphasis, full scale 1, [B, 160 T], and the state after the last frame.

    Raises:
        ValueError: A shape, dtype, device, range or impl does not fit, or conditions are NaN or infinite.
    """
    _check(weights, conditions, periods, state)
    if choose(impl, conditions.device, conditions.dtype, triton_fits=False) == "cpu":
        return cpu.synthesise(conditions.detach(), periods, weights, state)
    with torch.no_grad(), exact_products(conditions.device):
        return reference.synthesise(conditions, periods, weights, state)


def _check(weights: VocoderWeights, conditions: Tensor, periods: Tensor, state: VocoderState) -> None:
    dtype, device = weights.gain.dtype, weights.gain.device
    batch, frames = periods.shape if periods.ndim == 2 else (-1, -1)
    if frames < 0 or periods.dtype != torch.int64 or periods.device != device:
        raise ValueError(
            f"periods: expected int64 [B, T] on {device} as the weights, got {periods.dtype} "
            f"{list(periods.shape)} on {periods.device}"
        )
    expected = {
        "conditions": (conditions, (batch, frames, SUBFRAMES, CONDITION), dtype),
        "state.samples": (state.samples, (batch, HISTORY), dtype),
        "state.convolution": (state.convolution, (batch, MEMORY), dtype),
        "state.gru1": (state.gru1, (batch, STATES[0]), dtype),
        "state.gru2": (state.gru2, (batch, STATES[1]), dtype),
        "state.gru3": (state.gru3, (batch, STATES[2]), dtype),
        "state.period": (state.period, (batch,), torch.int64),
    }
    for name, (tensor, shape, wanted) in expected.items():
        if tensor.shape != shape or tensor.dtype != wanted or tensor.device != device:
            raise ValueError(
                f"{name}: expected {wanted} {list(shape)} on {device} as periods and weights, got "
                f"{tensor.dtype} {list(tensor.shape)} on {tensor.device}"
            )
    for name, tensor, first in (("periods", periods, False), ("state.period", state.period, True)):
        wrong = (tensor < SHORTEST) | (tensor > LONGEST)
        if first:
            wrong &= tensor != 0
        if bool(wrong.any()):
            raise ValueError(
                f"{name}: expected {SHORTEST}..{LONGEST} samples{', or 0 before a first frame' * first}, got "
                f"{int(tensor[wrong][0])}"
            )
    if not bool(conditions.isfinite().all()):
        raise ValueError("conditions: expected finite numbers, got NaN or infinity")
