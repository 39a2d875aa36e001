"""The specification of vocoder_frames in plain PyTorch, for float32 and float64 and any device.

The signal network of FARGAN (Valin, Mustafa and Buethe 2024, arXiv 2405.21069) writes 40 samples at a time
from the condition of a subframe and from its own last samples. Rows of the batch are computed one by one: a
product of several rows may add in another order than that of one, and the network feeds its rounding back.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from csm_kernels.int8_rows import Int8Rows
from csm_kernels.vocoder_frames.weights import FRAME, HISTORY, SUBFRAME, VocoderState, VocoderWeights

# Log of the largest gain. Speech does not reach it: samples before de-emphasis are within 1.85.
LARGEST_LOG_GAIN = math.log(4.0)


def synthesise(
    conditions: Tensor, periods: Tensor, weights: VocoderWeights, state: VocoderState
) -> tuple[Tensor, VocoderState]:
    """See `csm_kernels.vocoder_frames`."""
    weights, (batch, frames) = weights.restored(), periods.shape
    samples = conditions.new_empty(batch, frames * FRAME)
    new = VocoderState(*(tensor.clone() for tensor in state))
    for row in range(batch):
        carried = [tensor[row].clone() for tensor in state]
        period = int(carried.pop()) or (int(periods[row, 0]) if frames else 0)
        for t in range(frames):
            for s in range(4):
                carried = _subframe(conditions[row, t, s], period, weights, *carried)
                first = t * FRAME + s * SUBFRAME
                samples[row, first : first + SUBFRAME] = carried[0][-SUBFRAME:]
            period = int(periods[row, t])
        for target, tensor in zip(new, (*carried, periods.new_tensor(period)), strict=True):
            target[row] = tensor
    return samples, new


def _subframe(
    condition: Tensor,
    period: int,
    weights: VocoderWeights,
    past: Tensor,
    memory: Tensor,
    *states: Tensor,
) -> list[Tensor]:
    """Returns the last samples [256] with 40 new ones, the convolution's input [164] and the GRUs' states."""
    gain = F.linear(condition, weights.gain, weights.gain_bias).clamp(max=LARGEST_LOG_GAIN).exp()
    scale = 1 / (1e-5 + gain)
    # One period ago, 2 samples early and 2 late; what is not written yet, another period ago.
    place = torch.arange(SUBFRAME + 4, device=past.device) + HISTORY - period - 2
    place = torch.where(place < HISTORY, place, place - period).clamp(min=0)
    predicted = (scale * past[place]).clamp(-1, 1)
    last = (scale * past[-SUBFRAME:]).clamp(-1, 1)

    read = torch.cat([condition, predicted, last])
    features = torch.tanh(_product(torch.cat([memory, read]), weights.convolution))
    features = _gated(features, weights.convolution_gate)
    gains = torch.sigmoid(F.linear(features, weights.pitch_gains, weights.pitch_gains_bias))
    one, two, three, four = (torch.cat([g * predicted[2:-2], last]) for g in gains)
    first = _gru(torch.cat([features, one]), states[0], weights.gru1_input, weights.gru1_recurrent)
    out1 = _gated(first, weights.gru1_gate)
    second = _gru(torch.cat([out1, two]), states[1], weights.gru2_input, weights.gru2_recurrent)
    out2 = _gated(second, weights.gru2_gate)
    third = _gru(torch.cat([out2, three]), states[2], weights.gru3_input, weights.gru3_recurrent)
    out3 = _gated(third, weights.gru3_gate)

    skip = torch.tanh(_product(torch.cat([out1, out2, out3, features, four]), weights.skip))
    new = gain * torch.tanh(_product(_gated(skip, weights.skip_gate), weights.output))
    return [torch.cat([past[SUBFRAME:], new]), read, first, second, third]


def _product(x: Tensor, matrix: Tensor | Int8Rows) -> Tensor:
    assert isinstance(matrix, Tensor), "int8 is restored before the first subframe"
    return F.linear(x, matrix)


def _gated(x: Tensor, gate: Tensor | Int8Rows) -> Tensor:
    return x * torch.sigmoid(_product(x, gate))


def _gru(x: Tensor, state: Tensor, of_input: Tensor | Int8Rows, recurrent: Tensor | Int8Rows) -> Tensor:
    a, r = _product(x, of_input).chunk(3), _product(state, recurrent).chunk(3)
    update, reset = torch.sigmoid(a[0] + r[0]), torch.sigmoid(a[1] + r[1])
    return update * state + (1 - update) * torch.tanh(a[2] + reset * r[2])
