"""The two ends of the codec in the spectral domain: causal STFT frames in, overlap-added frames out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# log magnitudes below this count as silence: 1e-4 is under the 16-bit quantisation noise of one STFT bin.
MAGNITUDE_FLOOR = 1e-4
# Magnitudes to this power are near to loudness: their squared errors are about as audible at every level.
COMPRESSION = 0.3


class SpectralFrames(nn.Module):
    """Waveform to STFT features, frame t seeing samples up to (t + 1) * hop and none after.

    Features of a frame: log magnitude, and real and imaginary part compressed to the power COMPRESSION, so
    that phase is there for the codes that can use it.

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
        """C, three features per STFT bin."""
        return 3 * (self.window_length // 2 + 1)

    def initial_state(self, batch_size: int) -> Tensor:
        """Silence before the signal."""
        return self.window.new_zeros(batch_size, self.window_length - self.hop)

    def forward(self, waveform: Float[Tensor, "B S"]) -> Float[Tensor, "B T C"]:
        """Features [B, T, C] of waveforms [B, S], full scale = 1; S a multiple of the hop, T = S / hop."""
        past = self.window_length - self.hop
        if self.stream_state is None:
            padded = F.pad(waveform, (past, 0))
        else:
            padded = torch.cat([self.stream_state, waveform], dim=1)
            self.stream_state = padded[:, padded.shape[1] - past :].detach()
        with torch.autocast(waveform.device.type, enabled=False):
            spectrum = torch.fft.rfft(padded.float().unfold(-1, self.window_length, self.hop) * self.window)
            magnitude = spectrum.abs().clamp_min(MAGNITUDE_FLOOR)
            compressed = torch.view_as_real(spectrum) * magnitude.pow(COMPRESSION - 1).unsqueeze(-1)
            # About zero mean and unit variance over speech at -25 dBFS.
            return torch.cat([magnitude.log() * 0.4 + 1.0, compressed.flatten(-2)], dim=-1)

    def compressed(self, features: Float[Tensor, "B T C"]) -> Float[Tensor, "B T N"]:
        """Magnitudes [B, T, bins] to the power COMPRESSION, back from features, with their floor."""
        return ((features[..., : self.window_length // 2 + 1] - 1.0) * (COMPRESSION / 0.4)).exp()


class OverlapAdd(nn.Module):
    """Magnitude and phase of frames to a waveform by inverse STFT; frame t fills samples up to (t + 1) * hop.

    A sample is final once the `window_hops - 1` frames after its own have come: that is the decoder's
    latency, `delay` samples. In streaming use those samples are held back and `flush` hands out the rest at
    the end. Source: Vocos (Siuzdak 2023) for the head.

    Args:
        width: Of the input.
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
        self._preroll = 0

    @property
    def delay(self) -> int:
        """Samples that one more frame would still change."""
        return self.window_length - self.hop

    def initial_state(self, batch_size: int) -> Tensor:
        """Nothing to add to the first frame."""
        self._preroll = self.delay
        return self.window.new_zeros(batch_size, self.delay)

    def frames(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T N"]:
        """Windowed time-domain frames [B, T, N], N the window's length."""
        # In fp32: a phase rounded to bf16's 8 bits is audible noise.
        with torch.autocast(x.device.type, enabled=False):
            log_magnitude, phase = self.project(x.float()).chunk(2, dim=-1)
            # exp(5) is four times the largest bin of a full-scale sine at 588 samples: guards early training.
            spectrum = torch.polar(log_magnitude.clamp(max=5.0).exp(), phase)
            return torch.fft.irfft(spectrum, n=self.window_length) * self.window

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B S"]:
        """The waveform [B, T * hop]; in streaming it trails by `delay`, the first call's is shorter."""
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
        skip = min(self._preroll, ready.shape[1])
        self._preroll -= skip
        return ready[:, skip:]

    def flush(self) -> Float[Tensor, "B S"]:
        """The samples [B, S] still held back at the end of a stream: `delay`, or fewer of a shorter stream.

        Raises:
            ValueError: Outside `streaming`.
        """
        if self.stream_state is None:
            raise ValueError("flush belongs inside `with tokenizer.streaming(...)`, after the last frame")
        rest, self.stream_state = self.stream_state, torch.zeros_like(self.stream_state)
        first, self._preroll = self._preroll, self.delay
        return rest[:, first:]
