"""segmentation-3.0 of pyannote.audio (Plaquet and Bredin 2023, MIT): who of up to three people speaks when.

Ten seconds of one channel give, 59 times a second, the log probabilities of no speaker, of one of three, and
of two of them. The numbers of people hold inside a window only.
"""

from __future__ import annotations

from itertools import combinations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

RATE, WINDOW = 16_000, 160_000  # samples
#: Samples from one frame to the next, and the middle of the first one.
STEP, FIRST = 270, 495
PEOPLE = 3
#: The sets of people that a frame's classes stand for.
CLASSES = ((), *combinations(range(PEOPLE), 1), *combinations(range(PEOPLE), 2))
#: Widths of the convolutions, and their kernels; the first one's filters have parameters of their own.
FILTERS, CHANNELS, KERNEL, POOL, STRIDE = 80, 60, 5, 3, 10
LOWEST_HZ, NARROWEST_HZ = 50.0, 50.0
HIDDEN, LAYERS = 128, 4


class ActivityNetwork(nn.Module):
    """Waveforms [B, S] at 16 kHz to log probabilities [B, T, 7] of `CLASSES`.

    Args:
        weights: State of the reference's network (SincNet, LSTM, two layers, classifier).
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self._weights = weights
        self._filters = _band_passes(weights, "sincnet.conv1d.0.filterbank.")
        self._lstm = nn.LSTM(CHANNELS, HIDDEN, LAYERS, batch_first=True, bidirectional=True)
        self._lstm.load_state_dict({k[5:]: v for k, v in weights.items() if k.startswith("lstm.")})

    @torch.no_grad()
    def forward(self, waveforms: Float[Tensor, "B S"]) -> Float[Tensor, "B T 7"]:
        """Returns log probabilities."""
        x = self._normalized(waveforms.unsqueeze(1), "sincnet.wav_norm1d")
        x = F.conv1d(x, self._filters, stride=STRIDE).abs()
        for number in range(3):
            if number:
                x = self._convolved(x, f"sincnet.conv1d.{number}")
            x = F.leaky_relu(self._normalized(F.max_pool1d(x, POOL), f"sincnet.norm1d.{number}"))
        x, _ = self._lstm(x.transpose(1, 2))
        for number in range(2):
            x = F.leaky_relu(F.linear(x, *self._of(f"linear.{number}")))
        return F.linear(x, *self._of("classifier")).log_softmax(-1)

    def _of(self, name: str) -> tuple[Tensor, Tensor]:
        return self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]

    def _normalized(self, x: Tensor, name: str) -> Tensor:
        weight, bias = self._of(name)
        return F.instance_norm(x, weight=weight, bias=bias)

    def _convolved(self, x: Tensor, name: str) -> Tensor:
        return F.conv1d(x, *self._of(name))


def _band_passes(weights: dict[str, Tensor], name: str) -> Float[Tensor, "80 1 251"]:
    """Returns the filters of SincNet (Ravanelli and Bengio 2018): cosines, then sines, of 40 bands."""
    low = LOWEST_HZ + weights[f"{name}low_hz_"].abs()
    high = (low + NARROWEST_HZ + weights[f"{name}band_hz_"].abs()).clamp(LOWEST_HZ, RATE / 2)
    times, window = weights[f"{name}n_"], weights[f"{name}window_"]  # of the left half, in radians a hertz
    band = high - low
    even = (torch.sin(high @ times) - torch.sin(low @ times)) / (times / 2) * window
    odd = (torch.cos(low @ times) - torch.cos(high @ times)) / (times / 2) * window
    cosines = torch.cat([even, 2 * band, even.flip(1)], dim=1)
    sines = torch.cat([odd, torch.zeros_like(band), -odd.flip(1)], dim=1)
    return (torch.cat([cosines, sines]) / (2 * torch.cat([band, band]))).unsqueeze(1)
