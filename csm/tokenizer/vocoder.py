"""The decoder's last stage with a vocoder: features every 10 ms to a waveform at 24 kHz.

FARGAN (Valin, Mustafa & Buethe 2024, arXiv 2405.21069) synthesises speech at 16 kHz from cepstrum, pitch and
periodicity; its weights are libopus'. Noise in two bands is added above it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from csm.tokenizer.vocoder_features import CEPSTRUM, HOP, PITCH, PITCH_RANGE, SAMPLE_RATE, VOCODER_RATE
from csm_kernels import Int8Rows, VocoderState, VocoderWeights, vocoder_frames

# Matrices [out, in] of FARGAN: those of its conditioning network, and of the signal network, two with a bias.
_CONDITIONING = {"periods": (224, 12), "features": (64, 32), "frames": (128, 192), "conditions": (320, 128)}
SHAPES = {**_CONDITIONING, **VocoderWeights.shapes}
# Those that libopus holds as integers with a scale per row, and that stay so.
INTEGERS = VocoderWeights.matrices
COMPUTED = "interpolation", "noise"
# In samples at 24 kHz: its speech trails the features by one and a half steps, as these trail the waveform.
_FARGAN_DELAY, _FEATURE_DELAY = 360, 360
_EMPHASIS = 0.85
# Samples of a step at 16 kHz, and the shortest period.
_FRAME, _SHORTEST = 160, 32
# Of the filter from 16 to 24 kHz, at 48 kHz: taps, edge of the pass band in Hz, Kaiser's parameter (60 dB).
_TAPS, _EDGE_HZ, _KAISER = 144, 7_900.0, 6.0
# Period of the noise above 8 kHz in steps.
_NOISE_STEPS = 151


class VocoderStream(NamedTuple):
    """State of streams between two calls, [B, ...].

    Attributes:
        frames: Conditioning network's input of the two frames before, [B, 2, 64].
        deemphasis: Last sample after de-emphasis, float64 [B, 1].
        filtered: Last samples at 16 kHz that the next ones at 24 kHz need, [B, 48].
        gains: Amplitudes of the high bands at the last step, [B, 2].
        step: Steps so far, int64 [B].
        last: Last features, [B, 22].
        samples, convolution, gru1, gru2, gru3, period: State of `vocoder_frames`.
    """

    frames: Tensor
    deemphasis: Tensor
    filtered: Tensor
    gains: Tensor
    step: Tensor
    last: Tensor
    samples: Tensor
    convolution: Tensor
    gru1: Tensor
    gru2: Tensor
    gru3: Tensor
    period: Tensor


class Vocoder(nn.Module):
    """Features [B, T, 22] to waveforms [B, T * 240]; its weights are buffers, which no training changes.

    The output for a step is complete `delay` samples after it. Everything before and after FARGAN's
    recurrence is of double precision, rounded to single precision: samples then depend neither on the batch
    nor on how a stream is cut.
    """

    gain: Tensor
    interpolation: Tensor
    noise: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name, shape in SHAPES.items():
            weight = torch.zeros(shape)
            if len(shape) == 2:
                nn.init.normal_(weight, std=shape[1] ** -0.5)
            if name in INTEGERS:
                weight, scale = Int8Rows.of(weight)
                self.register_buffer(f"{name}_scale", scale)
            self.register_buffer(name, weight)
        self.register_buffer("interpolation", _interpolation(), persistent=False)
        self.register_buffer("noise", _high_noise(), persistent=False)
        self.stream_state: VocoderStream | None = None
        self.preroll = 0
        self._packed: tuple[Any, VocoderWeights] | None = None

    @torch.no_grad()
    def set_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Copies FARGAN's weights by name: those of SHAPES, and for INTEGERS a scale per row."""
        for name, buffer in self.named_buffers():
            if name not in COMPUTED:
                buffer.copy_(weights[name])

    @property
    def delay(self) -> int:
        """Samples by which the output trails the waveform that the features were computed from."""
        return _FEATURE_DELAY + _FARGAN_DELAY + _TAPS // 4

    def initial_state(self, batch_size: int) -> VocoderStream:
        """Returns the state of silence before the first step."""
        self.preroll = self.delay
        return self._silence(batch_size)

    @torch.no_grad()
    def forward(self, features: Float[Tensor, "B T C"]) -> Float[Tensor, "B S"]:
        """Returns the waveform [B, T * 240], full scale = 1, in fp32.

        In a stream it trails by `delay`, so that the first parts are shorter.
        """
        if self.stream_state is not None:
            ready, self.stream_state = self._speak(features, self.stream_state)
            skip = min(self.preroll, ready.shape[1])
            self.preroll -= skip
            return ready[:, skip:]
        ready, state = self._speak(features, self._silence(len(features)))
        rest = self._rest(state)
        return torch.cat([ready, rest], dim=1)[:, self.delay :]

    @torch.no_grad()
    def flush(self) -> Float[Tensor, "B S"]:
        """Returns the samples [B, S] held back at the end of a stream: `delay`, or fewer of a shorter stream.

        Raises:
            ValueError: The call is outside `streaming`.
        """
        if self.stream_state is None:
            raise ValueError("flush is outside a stream: call it inside `with tokenizer.streaming(...)`")
        rest, first = self._rest(self.stream_state), self.preroll
        self.stream_state = self.initial_state(len(rest))
        return rest[:, first:]

    def _silence(self, batch: int) -> VocoderStream:
        device = self.gain.device
        state = VocoderState.silence(batch)
        blank: Any = torch.zeros
        return VocoderStream(
            frames=blank(batch, 2, 64, dtype=torch.float64, device=device),
            deemphasis=blank(batch, 1, dtype=torch.float64),
            filtered=blank(batch, _TAPS // 3, dtype=torch.float64),
            gains=blank(batch, 2, dtype=torch.float64),
            step=blank(batch, dtype=torch.int64),
            last=blank(batch, CEPSTRUM + 4),
            **state._asdict(),
        )

    def _rest(self, state: VocoderStream) -> Float[Tensor, "B S"]:
        """Returns the `delay` samples after a stream, which ends as its last step."""
        steps = math.ceil(self.delay / HOP)
        ready, _ = self._speak(state.last.unsqueeze(1).expand(-1, steps, -1), state)
        return ready[:, : self.delay]

    def _speak(
        self, features: Float[Tensor, "B T C"], state: VocoderStream
    ) -> tuple[Float[Tensor, "B S"], VocoderStream]:
        """Returns the samples of the next steps, and the new state."""
        features = features.float()
        pitch = features[..., PITCH].clamp(*PITCH_RANGE).double()
        periods = (0.5 + 256 / 2 ** (pitch + 1.5)).long()
        conditions, frames = self._conditions(features[..., : CEPSTRUM + 2].double(), periods, state.frames)
        parts, carried = vocoder_frames(
            self._weights(),
            conditions.float().cpu(),
            periods.cpu(),
            VocoderState(*state[-len(VocoderState._fields) :]),
        )
        speech, deemphasis = _deemphasised(parts.double(), state.deemphasis)
        wide, filtered = self._upsampled(speech, state.filtered)
        noise, gains = self._high_bands(features[..., CEPSTRUM + 2 :].double().cpu(), state)
        last = features[:, -1] if features.shape[1] else state.last
        step = state.step + features.shape[1]
        new = VocoderStream(frames, deemphasis, filtered, gains, step, last, **carried._asdict())
        return (wide + noise).float().to(features.device), new

    def _conditions(
        self, features: Float[Tensor, "B T C"], periods: Int[Tensor, "B T"], before: Float[Tensor, "B P W"]
    ) -> tuple[Float[Tensor, "B T 4 80"], Float[Tensor, "B P W"]]:
        """Returns the condition of each subframe, and what the next call needs of this one."""
        exact = {name: getattr(self, name).double() for name in _CONDITIONING}
        embedded = exact["periods"][periods - _SHORTEST]
        rows = torch.tanh(F.linear(torch.cat([features, embedded], dim=-1), exact["features"]))
        rows = torch.cat([before, rows], dim=1)
        windows = torch.cat([rows[:, :-2], rows[:, 1:-1], rows[:, 2:]], dim=-1)
        hidden = torch.tanh(F.linear(windows, exact["frames"]))
        conditions = torch.tanh(F.linear(hidden, exact["conditions"]))
        return conditions.unflatten(-1, (4, -1)), rows[:, -2:]

    def _weights(self) -> VocoderWeights:
        # Made and packed once: a stream calls for them every 80 ms.
        present = tuple(buffer._version for buffer in self.buffers()), self.gain.data_ptr()
        if self._packed is None or self._packed[0] != present:
            self._packed = present, self._made_weights()
        return self._packed[1]

    def _made_weights(self) -> VocoderWeights:
        own = {name: buffer.detach().cpu() for name, buffer in self.named_buffers()}
        weights: dict[str, Any] = {name: own[name].float() for name in SHAPES if name not in _CONDITIONING}
        weights |= {name: Int8Rows(own[name], own[f"{name}_scale"].float()) for name in INTEGERS}
        return VocoderWeights(**weights)

    def _upsampled(
        self, speech: Float[Tensor, "B S"], before: Float[Tensor, "B P"]
    ) -> tuple[Float[Tensor, "B S2"], Float[Tensor, "B P"]]:
        """Returns speech [B, S] at 16 kHz as [B, 1.5 S] at 24 kHz, and its last samples."""
        signal = torch.cat([before, speech], dim=1)
        # The first one ends before the new samples, of which there may be none.
        windows = signal.unfold(1, _TAPS // 3, 2)[:, 1:]
        return (windows @ self.interpolation.cpu().double()).flatten(1), signal[:, -before.shape[1] :]

    def _high_bands(
        self, energies: Float[Tensor, "B T 2"], state: VocoderStream
    ) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B 2"]]:
        """Returns noise [B, T * 240] of the bands' energies, and their last amplitudes."""
        gains = torch.cat([state.gains.unsqueeze(1), (10**energies - 1e-2).clamp_min(0).sqrt()], dim=1)
        rise = (torch.arange(HOP, dtype=torch.float64) + 1) / HOP
        first, second = gains[:, :-1].unsqueeze(2), gains[:, 1:].unsqueeze(2)
        amplitudes = (first + (second - first) * rise.unsqueeze(-1)).flatten(1, 2)
        steps = state.step.unsqueeze(1) + torch.arange(energies.shape[1])
        noise = self.noise.cpu().double().view(_NOISE_STEPS, HOP, -1)[steps % _NOISE_STEPS].flatten(1, 2)
        return (amplitudes * noise).sum(dim=-1), gains[:, -1]


def _deemphasised(
    samples: Float[Tensor, "B S"], before: Float[Tensor, "B 1"]
) -> tuple[Float[Tensor, "B S"], Float[Tensor, "B 1"]]:
    """Undoes the pre-emphasis of [B, S] after a last sample [B, 1]; returns the samples and the last one.

    By frames of 160 samples: within one, a sample is the sum of those before it with powers of the factor.
    """
    place = torch.arange(_FRAME)
    distance = place.unsqueeze(0) - place.unsqueeze(1)
    powers = torch.where(distance >= 0, _EMPHASIS ** distance.clamp_min(0).double(), 0.0)
    own = samples.unflatten(1, (-1, _FRAME)) @ powers
    decay = _EMPHASIS ** (place + 1).double()
    out = []
    for frame in own.unbind(1):
        out.append(frame + before * decay)
        before = out[-1][:, -1:]
    return torch.cat(out, dim=1) if out else samples, before


def _interpolation() -> Float[Tensor, "N 3"]:
    """Returns the filter from 16 to 24 kHz: weights [48, 3] of the last samples for three new ones."""
    place = torch.arange(_TAPS, dtype=torch.float64) - (_TAPS - 1) / 2
    cutoff = 2 * _EDGE_HZ / (3 * VOCODER_RATE)
    kaiser = torch.kaiser_window(_TAPS, periodic=False, beta=_KAISER, dtype=torch.float64)
    taps = 3 * cutoff * torch.sinc(cutoff * place) * kaiser
    weights = torch.zeros(_TAPS // 3, 3, dtype=torch.float64)
    # Two samples at 16 kHz are six places at 48 kHz, of which three samples at 24 kHz are every second one.
    for new in range(3):
        for old in range(_TAPS // 3):
            # The window ends with the second of two samples; this one lies 2 * new places after the first.
            tap = 2 * new + 3 * (_TAPS // 3 - 2 - old)
            if 0 <= tap < _TAPS:
                weights[old, new] = taps[tap]
    return weights


def _high_noise() -> Float[Tensor, "S 2"]:
    """Returns noise [S, 2] at 8 to 10 and 10 to 12 kHz; amplitude 1 has energy 1 as features have it."""
    size = _NOISE_STEPS * HOP
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.fft.rfft(torch.randn(size, generator=generator, dtype=torch.float64))
    frequency = torch.arange(len(spectrum)) * (SAMPLE_RATE / size)
    bands = [(8_000, 10_000), (10_000, 12_001)]
    parts = [torch.fft.irfft(spectrum * ((frequency >= low) & (frequency < top)), size) for low, top in bands]
    # Energy of features: squares of a window's spectrum, of samples at full scale 32,768 and over its length,
    # summed over a band. For noise that is its mean square times half of the window's mean square, 0.5.
    energy = [part.square().mean() * 32_768**2 * 0.25 for part in parts]
    return torch.stack([part / value.sqrt() for part, value in zip(parts, energy, strict=True)], dim=-1)
