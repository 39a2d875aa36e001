"""Whisper's log-mel features out of a causal stream at the tokenizer's own sample rate.

Whisper reads 16 kHz by windows of 25 ms every 10 ms. Windows of the same duration at another rate have the
same resolution, so a filter bank up to 8 kHz over their bins gives the same features without resampling.
Whisper cuts features 8 decades below the loudest one of the whole recording; a stream has not seen it yet, so
the cut is at a fixed level here.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

BANDS, HIGHEST_HZ = 80, 8000.0
STEPS_PER_SECOND = 100
#: Lowest log10 power: 8 decades below a loud vowel, as in Whisper's features of ordinary recordings.
FLOOR = -7.0


class LogMel(nn.Module):
    """Waveform to log-mel features on Whisper's scale.

    The window of step m ends with the step itself, at sample (m + 1) * hop: its centre lies a quarter of a
    hop before that of Whisper's step m.

    Args:
        sample_rate: Hz, a multiple of 400, at least 16,000.

    Raises:
        ValueError: Another sample rate.
    """

    window: Tensor
    filters: Tensor

    def __init__(self, sample_rate: int) -> None:
        super().__init__()
        if sample_rate % 400 or sample_rate < 2 * HIGHEST_HZ:
            raise ValueError(f"sample_rate is {sample_rate}: expected a multiple of 400 from 16000 on")
        self.hop = sample_rate // STEPS_PER_SECOND
        self.length = 5 * self.hop // 2
        self.register_buffer("window", torch.hann_window(self.length), persistent=False)
        # Power grows with the square of the samples in a window: the division undoes it.
        scale = (16_000 / sample_rate) ** 2
        filters = mel_filters(self.length // 2 + 1, sample_rate) * scale
        self.register_buffer("filters", filters, persistent=False)
        self.stream_state: Tensor | None = None

    def initial_state(self, batch_size: int) -> Tensor:
        """Returns the silence before the signal."""
        return self.window.new_zeros(batch_size, self.length - self.hop)

    def forward(self, waveform: Float[Tensor, "B S"]) -> Float[Tensor, "B T 80"]:
        """Returns features [B, T, 80] of waveforms [B, S], full scale = 1; S = T * hop."""
        past = self.length - self.hop
        if self.stream_state is None:
            padded = F.pad(waveform, (past, 0))
        else:
            padded = torch.cat([self.stream_state, waveform], dim=1)
            self.stream_state = padded[:, padded.shape[1] - past :].detach()
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.fft.rfft(padded.float().unfold(-1, self.length, self.hop) * self.window)
            power = torch.view_as_real(spectrum).square().sum(-1) @ self.filters
            return (power.clamp_min(10**FLOOR).log10() + 4) / 4


def mel_filters(bins: int, sample_rate: int) -> Float[Tensor, "N 80"]:
    """Returns triangular filters of equal area on Slaney's mel scale, from 0 to 8 kHz.

    Source: M. Slaney, Auditory Toolbox, 1998: linear to 1 kHz, 27 bands for each factor of 6.4 above.
    """
    edges = torch.linspace(0.0, _mel(HIGHEST_HZ), BANDS + 2, dtype=torch.float64)
    linear = edges * (200 / 3)
    above = 1000 * ((edges - 15) * (math.log(6.4) / 27)).exp()
    hertz = torch.where(edges < 15, linear, above)
    frequencies = torch.linspace(0.0, sample_rate / 2, bins, dtype=torch.float64).unsqueeze(1)
    low, centre, high = hertz[:-2], hertz[1:-1], hertz[2:]
    rising, falling = (frequencies - low) / (centre - low), (high - frequencies) / (high - centre)
    return (rising.minimum(falling).clamp_min(0) * 2 / (high - low)).float()


def _mel(hertz: float) -> float:
    return 15 + 27 * math.log(hertz / 1000) / math.log(6.4)
