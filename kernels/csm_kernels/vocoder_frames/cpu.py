"""vocoder_frames by the compiled kernel of cpu.cpp."""

import itertools
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor

from csm_kernels.int8_rows import Int8Rows
from csm_kernels.native import integer, kernel, pointer, threads
from csm_kernels.vocoder_frames.weights import FRAME, MATRICES, VocoderState, VocoderWeights

PANEL = 16  # outputs of a panel of cpu.cpp


class Packed(NamedTuple):
    """Weights as cpu.cpp reads them. A matrix is cut into panels [in, 16] of its outputs.

    Attributes:
        versions: State of the tensors when they were packed.
        small: A panel with the biases of the log gain and the pitch gains, then the gain and the pitch gains.
        matrices: The matrices that int8 replaces, one after the other, fp32 or int8.
        scales: Scales of all their outputs; None in fp32.
    """

    versions: list[tuple[int, int]]
    small: Tensor
    matrices: Tensor
    scales: Tensor | None


_packed: WeakKeyDictionary[VocoderWeights, Packed] = WeakKeyDictionary()


def synthesise(
    conditions: Tensor,
    periods: Tensor,
    weights: VocoderWeights,
    state: VocoderState,
    *,
    instruction_set: str | None = None,
    team: int | None = None,
) -> tuple[Tensor, VocoderState]:
    """See `csm_kernels.vocoder_frames`; all tensors are fp32 (or int8 rows) on the CPU.

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
    given, lags, given_weights = conditions.contiguous(), periods.contiguous(), packed(weights)
    kernel("vocoder_frames", instruction_set)(
        pointer(given_weights.small),
        pointer(given_weights.matrices),
        pointer(given_weights.scales),
        pointer(given),
        pointer(lags),
        integer(batch),
        integer(frames),
        integer(min(batch, team or threads().value)),
        *(pointer(tensor) for tensor in new),
        pointer(samples),
    )
    return samples, new


def packed(weights: VocoderWeights) -> Packed:
    """Returns packed weights, which are kept with the weights until one of these changes in place."""
    matrices = [getattr(weights, name) for name in MATRICES]
    small = [weights.gain_bias, weights.pitch_gains_bias, weights.gain, weights.pitch_gains]
    parts = [(m.values, m.scale) if isinstance(m, Int8Rows) else (m, None) for m in matrices]
    versions = [_version(t) for t in (*small, *itertools.chain(*parts)) if t is not None]
    known = _packed.get(weights)
    if known is None or known.versions != versions:
        biases = torch.cat(small[:2]).detach()
        scales = [_padded(scale) for _, scale in parts if scale is not None]
        known = _packed[weights] = Packed(
            versions,
            torch.cat([_padded(biases), *map(_panels, small[2:])]),
            torch.cat([_panels(values) for values, _ in parts]),
            torch.cat(scales) if scales else None,
        )
    return known


def _panels(matrix: Tensor) -> Tensor:
    rows = F.pad(matrix.detach(), (0, 0, 0, -len(matrix) % PANEL))
    return rows.unflatten(0, (-1, PANEL)).transpose(1, 2).flatten()


def _padded(vector: Tensor) -> Tensor:
    return F.pad(vector.detach(), (0, -len(vector) % PANEL))


def _version(tensor: Tensor) -> tuple[int, int]:
    # Inference tensors have no version counter.
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
