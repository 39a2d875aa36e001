"""Both ends of the codec in the spectral domain: causal STFT features in, overlap-added frames out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# Smaller magnitudes count as silence: 1e-4 is below the 16-bit quantisation noise of one STFT bin.
MAGNITUDE_FLOOR = 1e-4
# Magnitudes to this power are near to loudness: their squared errors are about as audible at every level.
COMPRESSION = 0.3
# Log magnitudes times this, plus this: about zero mean and unit variance over speech at -25 dBFS.
LOG_SCALE, LOG_OFFSET = 0.4, 1.0
# exp(5) is four times the largest bin of a full-scale sine at 588 samples: a guard for early training.
MAX_LOG_MAGNITUDE = 5.0


class SpectralFrames(nn.Module):
    """Waveform to the STFT features of `spectral_features`; frame t sees samples up to (t + 1) * hop.

    Args:
        hop: Samples between frames.
        window_hops: Length of the Hann window in hops.
    """

    window: Tensor

    def __init__(self, hop: int, window_hops: int) -> None:
        super().__init__()
        self.hop = hop
        self.window_length = hop * window_hops
        self.register_buffer("window", torch.hann_window(self.window_length), persistent=False)
        self.stream_state: Tensor | None = None

    @property
    def feature_width(self) -> int:
        """Features of a frame, three per STFT bin."""
        return 3 * (self.window_length // 2 + 1)

    def initial_state(self, batch_size: int) -> Tensor:
        """Returns the silence before the signal."""
        return self.window.new_zeros(batch_size, self.window_length - self.hop)

    def forward(self, waveform: Float[Tensor, "B S"]) -> Float[Tensor, "B T C"]:
        """Returns features [B, T, C] of waveforms [B, S], full scale = 1, S = T * hop."""
        past = self.window_length - self.hop
        if self.stream_state is None:
            padded = F.pad(waveform, (past, 0))
        else:
            padded = torch.cat([self.stream_state, waveform], dim=1)
            self.stream_state = padded[:, padded.shape[1] - past :].detach()
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.fft.rfft(padded.float().unfold(-1, self.window_length, self.hop) * self.window)
            return spectral_features(torch.view_as_real(spectrum), spectrum.abs())

    def compressed(self, features: Float[Tensor, "B T C"]) -> Float[Tensor, "B T N"]:
        """Returns magnitudes [B, T, bins] to the power COMPRESSION, with their floor, from features."""
        scaled = features[..., : self.window_length // 2 + 1] - LOG_OFFSET
        return (scaled * (COMPRESSION / LOG_SCALE)).exp()


def spectral_features(
    parts: Float[Tensor, "*T N 2"], magnitude: Float[Tensor, "*T N"]
) -> Float[Tensor, "*T C"]:
    """Returns the features [..., 3 * bins] of STFT frames.

    They are log magnitudes, and real and imaginary parts whose magnitude is compressed to the power
    COMPRESSION: the phase is there for those codes that can use it.

    Args:
        parts: Real and imaginary parts, [..., bins, 2].
        magnitude: Their magnitudes, [..., bins].
    """
    magnitude = magnitude.clamp_min(MAGNITUDE_FLOOR)
    compressed = parts * magnitude.pow(COMPRESSION - 1).unsqueeze(-1)
    return torch.cat([magnitude.log() * LOG_SCALE + LOG_OFFSET, compressed.flatten(-2)], dim=-1)


class OverlapAdd(nn.Module):
    """Magnitude and phase of frames to a waveform by inverse STFT; frame t fills samples up to (t + 1) * hop.

    A sample is final after `window_hops - 1` further frames: that is the decoder's latency, `delay` samples.
    A stream holds these samples back, and `flush` returns them at its end. Source: Vocos (Siuzdak 2023).

    Args:
        width: Width of the hidden states.
        hop: Samples between frames.
        window_hops: Length of the Hann window in hops.
    """

    window: Tensor

    def __init__(self, width: int, hop: int, window_hops: int) -> None:
        super().__init__()
        self.hop = hop
        self.window_hops = window_hops
        self.window_length = hop * window_hops
        self.project = nn.Linear(width, 2 * (self.window_length // 2 + 1))
        window = torch.hann_window(self.window_length)
        # The squared window summed over the overlapping frames is constant (1.5 for four hops of Hann).
        self.register_buffer("window", window / (window.square().sum() / hop), persistent=False)
        self.stream_state: Tensor | None = None
        self.preroll = 0

    @property
    def delay(self) -> int:
        """Samples at the end of the output that later frames still change."""
        return self.window_length - self.hop

    def initial_state(self, batch_size: int) -> Tensor:
        """Returns the zeros that the first frame is added to."""
        self.preroll = self.delay
        return self.window.new_zeros(batch_size, self.delay)

    def frames(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T N"]:
        """Returns windowed time-domain frames [B, T, N], N the window's length."""
        # In fp32: a phase rounded to bf16's 8 bits is audible noise.
        with torch.autocast(x.device.type, enabled=False):
            log_magnitude, phase = self.project(x.float()).chunk(2, dim=-1)
            spectrum = torch.polar(log_magnitude.clamp(max=MAX_LOG_MAGNITUDE).exp(), phase)
            return torch.fft.irfft(spectrum, n=self.window_length) * self.window

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B S"]:
        """Returns the waveform [B, T * hop]; a stream trails by `delay`, its first part is shorter."""
        frames = self.frames(x)
        batch, steps, _ = frames.shape
        parts = frames.reshape(batch, steps, self.window_hops, self.hop)
        total = parts.new_zeros(batch, steps + self.window_hops - 1, self.hop)
        for offset in range(self.window_hops):
            total = total + F.pad(parts[:, :, offset], (0, 0, offset, self.window_hops - 1 - offset))
        signal = total.reshape(batch, -1)
        if self.stream_state is None:
            return signal[:, self.delay :]
        signal = torch.cat([signal[:, : self.delay] + self.stream_state, signal[:, self.delay :]], dim=1)
        ready, self.stream_state = signal[:, : steps * self.hop], signal[:, steps * self.hop :].detach()
        skip = min(self.preroll, ready.shape[1])
        self.preroll -= skip
        return ready[:, skip:]

    def flush(self) -> Float[Tensor, "B S"]:
        """Returns the samples [B, S] held back at the end of a stream: `delay`, or fewer of a shorter stream.

        Raises:
            ValueError: The call is outside `streaming`.
        """
        if self.stream_state is None:
            raise ValueError("flush is outside a stream: call it inside `with tokenizer.streaming(...)`")
        rest, self.stream_state = self.stream_state, torch.zeros_like(self.stream_state)
        first, self.preroll = self.preroll, self.delay
        return rest[:, first:]
