"""vocoder_frames by the compiled kernel of cpu.cpp."""

from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from csm_kernels.native import integer, kernel, pointer, threads
from csm_kernels.vocoder_frames.weights import FRAME, VocoderState, VocoderWeights

PANEL = 16  # outputs of a panel of cpu.cpp
ORDER = ("gain", "convolution", "convolution_gate", "pitch_gains")
ORDER += tuple(f"gru{k}_{part}" for k in (1, 2, 3) for part in ("input", "recurrent", "gate"))
ORDER += ("skip", "skip_gate", "output")

_packed: WeakKeyDictionary[VocoderWeights, tuple[list[tuple[int, int]], Tensor]] = WeakKeyDictionary()


def synthesise(
    conditions: Tensor,
    periods: Tensor,
    weights: VocoderWeights,
    state: VocoderState,
    *,
    instruction_set: str | None = None,
    team: int | None = None,
) -> tuple[Tensor, VocoderState]:
    """See `csm_kernels.vocoder_frames`; all tensors are fp32 on the CPU.

    Args:
        conditions, periods, weights, state: As of the operation.
        instruction_set: See `native.kernel`.
        team: Threads, which share the rows of the batch; None takes torch's. The result is the same.
    """
    batch, frames = periods.shape
    samples = torch.empty(batch, frames * FRAME)
    new = VocoderState(*(t.detach().clone(memory_format=torch.contiguous_format) for t in state))
    if not samples.numel():
        return samples, new
    given, lags = conditions.contiguous(), periods.contiguous()
    kernel("vocoder_frames", instruction_set)(
        pointer(packed(weights)),
        pointer(given),
        pointer(lags),
        integer(batch),
        integer(frames),
        integer(min(batch, team or threads().value)),
        *(pointer(tensor) for tensor in new),
        pointer(samples),
    )
    return samples, new


def packed(weights: VocoderWeights) -> Tensor:
    """Returns the weights as cpu.cpp reads them; kept with the weights until one of them changes in place.

    First a panel with the biases of the log gain and of the pitch gains, then the matrices of ORDER, each as
    panels [in, 16] of its outputs, zeros for those that are missing in the last.
    """
    found = [_version(tensor) for tensor in weights.named().values()]
    known = _packed.get(weights)
    if known is None or known[0] != found:
        biases = torch.cat([weights.gain_bias, weights.pitch_gains_bias]).detach()
        parts = [F.pad(biases, (0, PANEL - len(biases)))]
        for matrix in (getattr(weights, name).detach() for name in ORDER):
            rows = F.pad(matrix, (0, 0, 0, -len(matrix) % PANEL))
            parts.append(rows.unflatten(0, (-1, PANEL)).transpose(1, 2).flatten())
        known = _packed[weights] = found, torch.cat(parts)
    return known[1]


def _version(tensor: Tensor) -> tuple[int, int]:
    # Inference tensors have no version counter.
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
