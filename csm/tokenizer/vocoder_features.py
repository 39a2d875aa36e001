"""Features of speech that a vocoder speaks from: cepstrum, pitch, periodicity and two high bands.

Every 10 ms: the cepstrum of 18 bands up to 8 kHz, pitch and periodicity as LPCNet has them (Valin & Skoglund
2019, A Real-Time Wideband Neural Vocoder at 1.6 kb/s Using LPCNet), and the energies of the bands above,
which its 16 kHz do not hold.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from csm.tokenizer.pitch_steps import (
    Candidates,
    PitchState,
    initial_pitch_state,
    pitch_candidates,
    pitch_of_frame,
)

SAMPLE_RATE, HOP, STEPS_PER_FRAME = 24_000, 240, 8
# Columns: 18 of the cepstrum, pitch, periodicity, two high bands.
CEPSTRUM, PITCH, PERIODICITY, HIGH_BANDS = 18, 18, 19, 2
WIDTH = CEPSTRUM + 2 + HIGH_BANDS
#: Rate of the vocoder in Hz: its period of a pitch is in samples of it.
VOCODER_RATE = 16_000
# Range of the pitch feature: periods of 250 to 32 samples of the vocoder.
PITCH_RANGE = (8 - math.log2(250) - 1.5, 8 - math.log2(32) - 1.5)

# A segment of five hops; spectra of its middle two hops. Both are centred 2.5 hops before its end.
_SEGMENT, _WINDOW = 5 * HOP, 2 * HOP
_MARGIN = (_SEGMENT - _WINDOW) // 2
# Edges of LPCNet's bands in units of 200 Hz; those above are the high bands.
_EDGES = (0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 34, 40)
_HIGH_EDGES_HZ = (8_000, 10_000, 12_000)
_EMPHASIS = 0.85
_SEGMENTS_AT_ONCE = 256
_FULL_SCALE = 32_768.0


class FeatureState(NamedTuple):
    """State of a stream: the samples before it [B, 960], and the state of its pitch."""

    samples: Tensor
    pitch: PitchState


class VocoderFeatures(nn.Module):
    """Waveforms to the features of the vocoder; frame t sees samples up to (t + 1) * 1920.

    Step i describes the 20 ms around sample 240 * i - 360. It has no weights and passes no gradient.
    """

    window: Tensor
    bands: Tensor
    high: Tensor
    cosines: Tensor

    def __init__(self) -> None:
        super().__init__()
        place = (torch.arange(HOP, dtype=torch.float64) + 0.5) / HOP
        slope = torch.sin(0.5 * math.pi * torch.sin(0.5 * math.pi * place) ** 2)
        bins = _WINDOW // 2 + 1
        frequency = torch.arange(bins, dtype=torch.float64) * (SAMPLE_RATE / _WINDOW)
        # LPCNet's pre-emphasis at 16 kHz, as a factor of powers. Its spectra are divided by their length.
        angle = 2 * math.pi * frequency / VOCODER_RATE
        emphasis = 1 - 2 * _EMPHASIS * angle.cos() + _EMPHASIS**2
        scale = (_FULL_SCALE / _WINDOW) ** 2
        high = [(frequency >= low) & (frequency < top) for low, top in zip(*_high_edges(), strict=True)]
        cosines = torch.tensor(
            [
                [math.cos((band + 0.5) * k * math.pi / CEPSTRUM) for k in range(CEPSTRUM)]
                for band in range(CEPSTRUM)
            ],
            dtype=torch.float64,
        )
        cosines[:, 0] *= math.sqrt(0.5)
        for name, value in {
            "window": torch.cat([slope, slope.flip(0)]),
            "bands": _triangles(bins) * emphasis.unsqueeze(1) * scale,
            "high": torch.stack(high, dim=1).double() * scale,
            "cosines": cosines * math.sqrt(2 / CEPSTRUM),
        }.items():
            self.register_buffer(name, value, persistent=False)
        self.stream_state: FeatureState | None = None

    def initial_state(self, batch_size: int) -> FeatureState:
        """Returns the silence before the signal."""
        return FeatureState(torch.zeros(batch_size, _SEGMENT - HOP), initial_pitch_state(batch_size))

    @torch.no_grad()
    def forward(self, waveform: Float[Tensor, "B S"]) -> Float[Tensor, "B T C"]:
        """Returns features [B, T * 8, 22] of waveforms [B, T * 1920], full scale = 1, in fp32."""
        device = waveform.device
        state = self.stream_state or self.initial_state(len(waveform))
        # On the CPU and in double precision: its decisions must be the same everywhere.
        signal = torch.cat([state.samples, waveform.detach().cpu().float()], dim=1)
        segments = signal.unfold(1, _SEGMENT, HOP)
        pitch, parts = state.pitch, []
        for some in segments.split(self._steps_at_once(len(segments)), dim=1):
            found = pitch_candidates(some, SAMPLE_RATE)
            spectral = self._spectral(some[..., _MARGIN : _MARGIN + _WINDOW].double())
            for first in range(0, some.shape[1], STEPS_PER_FRAME):
                frame = slice(first, first + STEPS_PER_FRAME)
                of_frame = Candidates(*(value[:, frame] for value in found))
                octave, periodicity, pitch = pitch_of_frame(of_frame, pitch)
                parts.append(_columns(spectral[:, frame], octave, periodicity))
        if self.stream_state is not None:
            self.stream_state = FeatureState(signal[:, signal.shape[1] - (_SEGMENT - HOP) :], pitch)
        return torch.cat(parts, dim=1).float().to(device)

    @staticmethod
    def _steps_at_once(batch: int) -> int:
        """Steps, in whole frames, whose spectra fit a processor's cache."""
        return STEPS_PER_FRAME * max(1, _SEGMENTS_AT_ONCE // (STEPS_PER_FRAME * batch))

    def _spectral(self, rows: Float[Tensor, "B T N"]) -> Float[Tensor, "B T C"]:
        """Returns cepstrum and high bands [B, T, 20] of windows [B, T, 480]."""
        power = torch.fft.rfft(rows * self.window.cpu().double()).abs().square()
        log_energy = (power @ self.bands.cpu().double() + 1e-2).log10()
        # A band is at most 2.5 below the one before it and 8 below the loudest so far, as in LPCNet.
        loudest = follow = torch.full_like(log_energy[..., 0], -2.0)
        bands = []
        for energy in log_energy.unbind(-1):
            energy = torch.maximum(torch.maximum(loudest - 8, follow - 2.5), energy)
            loudest, follow = torch.maximum(loudest, energy), torch.maximum(follow - 2.5, energy)
            bands.append(energy)
        cepstrum = torch.stack(bands, dim=-1) @ self.cosines.cpu().double()
        cepstrum[..., 0] -= 4
        return torch.cat([cepstrum, (power @ self.high.cpu().double() + 1e-2).log10()], dim=-1)


def _columns(
    spectral: Float[Tensor, "B T 20"], octave: Float[Tensor, "B T"], periodicity: Float[Tensor, "B T"]
) -> Float[Tensor, "B T C"]:
    """Returns features of cepstrum and high bands, log2 of the pitch and correlation."""
    period = math.log2(VOCODER_RATE) - octave
    pitch = (8 - period - 1.5).clamp(*PITCH_RANGE)
    # LPCNet's scale: 0 to 1 of a correlation, less a half.
    periodic = F.softplus(5 * periodicity) / math.log1p(math.exp(5)) - 0.5
    sides = spectral[..., :CEPSTRUM], spectral[..., CEPSTRUM:]
    return torch.cat([sides[0], pitch.unsqueeze(-1), periodic.unsqueeze(-1), sides[1]], dim=-1)


def _high_edges() -> tuple[tuple[int, ...], tuple[int, ...]]:
    return _HIGH_EDGES_HZ[:-1], (*_HIGH_EDGES_HZ[1:-1], _HIGH_EDGES_HZ[-1] + 1)


def _triangles(bins: int) -> Float[Tensor, "N C"]:
    """Returns LPCNet's triangular bands as weights [bins, 18] of 50 Hz bins; the outer two count twice."""
    weights = torch.zeros(bins, CEPSTRUM, dtype=torch.float64)
    for band, (low, top) in enumerate(zip(_EDGES[:-1], _EDGES[1:], strict=True)):
        rise = torch.arange(4 * (top - low), dtype=torch.float64) / (4 * (top - low))
        weights[4 * low : 4 * top, band] += 1 - rise
        weights[4 * low : 4 * top, band + 1] += rise
    weights[:, 0] *= 2
    weights[:, -1] *= 2
    return weights
