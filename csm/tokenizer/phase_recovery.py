"""Recovers the phases of magnitude frames, block by block, so that it works on streams."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

# Iterations of a block, and the momentum of fast Griffin-Lim. With true magnitudes of speech, 8 iterations
# give PESQ-WB 3.2 to 3.9, random phases 1.5 (docs/LOG.md).
ITERATIONS = 8
MOMENTUM = 0.99


class PhaseStream(NamedTuple):
    """State of a stream between two calls.

    Attributes:
        tail: Sum of the finished frames from the first unfinished frame's samples on, [B, window - hop].
        magnitude: Magnitudes of the lookahead frames, [B, A, bins], A at most the head's `ahead`.
        phase: Their present phases as complex numbers of length 1, [B, A, bins].
    """

    tail: Tensor
    magnitude: Tensor
    phase: Tensor


class PhaseRecovery(nn.Module):
    """Phases that are consistent in the overlap of frames; frame t fills samples up to (t + 1) * hop.

    A codec of a few kilobits per second cannot transmit phases, and phases that a network predicts from
    magnitudes are inconsistent where frames overlap. Here every block of frames starts with the phases of the
    signal so far in the frame's window; each of eight iterations then takes the phases of the sum of all
    frames. The last `ahead` frames of a block are computed again with the next block. Sources: Zhu,
    Beauregard & Wyse 2007 (real-time iterative spectrogram inversion with look-ahead); Perraudin, Balazs &
    Sondergaard 2013 (fast Griffin-Lim).

    The module has no parameters and passes no gradient: training compares magnitudes with the recording's.

    Args:
        hop: Samples between frames.
        window_hops: Length of the Hann window in hops.
        block: STFT frames per call step, those of one codec frame.
        ahead: Lookahead frames, at most `block`.
    """

    window: Tensor
    laid_over: Tensor

    def __init__(self, hop: int, window_hops: int, *, block: int, ahead: int) -> None:
        super().__init__()
        self.hop, self.window_hops, self.window_length = hop, window_hops, hop * window_hops
        self.block, self.ahead = block, ahead
        window = torch.hann_window(self.window_length)
        self.register_buffer("window", window, persistent=False)
        # The squared window summed over the overlapping frames is constant (1.5 for four hops of Hann).
        self.register_buffer("laid_over", window * (hop / window.square().sum()), persistent=False)
        self.stream_state: PhaseStream | None = None
        self.preroll = 0

    @property
    def overlap(self) -> int:
        """Samples that a frame shares with those before it."""
        return self.window_length - self.hop

    @property
    def delay(self) -> int:
        """Samples that later frames may still change."""
        return self.overlap + self.ahead * self.hop

    def initial_state(self, batch_size: int) -> PhaseStream:
        """Returns the state of silence before the first frame."""
        self.preroll = self.overlap
        return self._silence(batch_size)

    @torch.no_grad()
    def forward(self, magnitude: Float[Tensor, "B T N"]) -> Float[Tensor, "B S"]:
        """Returns the waveform [B, T * hop] of linear magnitudes [B, T, bins], in fp32.

        In a stream it trails by `delay`, so that the first parts are shorter.
        """
        magnitude = magnitude.float()
        state = self.stream_state
        if state is not None:
            ready, self.stream_state = self._blocks(magnitude, state)
            skip = min(self.preroll, ready.shape[1])
            self.preroll -= skip
            return ready[:, skip:]
        ready, state = self._blocks(magnitude, self._silence(len(magnitude)))
        return torch.cat([ready, self._rest(state)], dim=1)[:, self.overlap :]

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

    def _silence(self, batch: int) -> PhaseStream:
        none = self.window.new_zeros(batch, 0, self.window_length // 2 + 1)
        return PhaseStream(
            self.window.new_zeros(batch, self.overlap), none, torch.complex(none, none.clone())
        )

    def _blocks(
        self, magnitude: Float[Tensor, "B T N"], state: PhaseStream
    ) -> tuple[Float[Tensor, "B S"], PhaseStream]:
        """Returns the samples that are final after these frames, and the new state."""
        parts = []
        for part in magnitude.split(self.block, dim=1):
            ready, state = self._advance(part, state, ahead=self.ahead)
            parts.append(ready)
        return torch.cat(parts, dim=1), state

    def _rest(self, state: PhaseStream) -> Float[Tensor, "B S"]:
        """Returns the remaining samples at the end of the signal."""
        none = state.magnitude[:, :0]
        ready, state = self._advance(none, state, ahead=0)
        return torch.cat([ready, state.tail], dim=1)

    def _advance(
        self, new: Float[Tensor, "B K N"], state: PhaseStream, *, ahead: int
    ) -> tuple[Float[Tensor, "B S"], PhaseStream]:
        """Adds frames; returns the samples of all frames but the last `ahead`, and the new state."""
        magnitude = torch.cat([state.magnitude, new], dim=1)
        if not magnitude.shape[1]:
            return state.tail[:, :0], state
        phase = self._agree(magnitude, self._first_phases(magnitude, state), state.tail)
        finished = max(0, magnitude.shape[1] - ahead)
        done = self._overlap_add(magnitude[:, :finished] * phase[:, :finished], state.tail)
        ready, tail = done.split([finished * self.hop, self.overlap], dim=1)
        return ready, PhaseStream(tail, magnitude[:, finished:], phase[:, finished:])

    def _first_phases(
        self, magnitude: Float[Tensor, "B K N"], state: PhaseStream
    ) -> Complex[Tensor, "B K N"]:
        """Returns the given phases, then frame by frame those of the signal so far in the frame's window."""
        known = state.phase.shape[1]
        phases = [state.phase]
        signal = self._overlap_add(magnitude[:, :known] * state.phase, state.tail)[:, known * self.hop :]
        for frame in range(known, magnitude.shape[1]):
            spectrum = torch.fft.rfft(F.pad(signal, (0, self.hop)) * self.window)
            phase = _direction(spectrum)
            # Silence needs some phase: from 0 no iteration would leave.
            phase = phase.masked_fill(phase == 0, 1.0).unsqueeze(1)
            phases.append(phase)
            signal = self._overlap_add(magnitude[:, frame : frame + 1] * phase, signal)[:, self.hop :]
        return torch.cat(phases, dim=1)

    def _agree(
        self,
        magnitude: Float[Tensor, "B K N"],
        phase: Complex[Tensor, "B K N"],
        tail: Float[Tensor, "B S"],
    ) -> Complex[Tensor, "B K N"]:
        """Iterates the frames' phases towards those of their sum; finished frames stay fixed."""
        before: Tensor | None = None
        for _ in range(ITERATIONS):
            signal = self._overlap_add(magnitude * phase, tail)
            spectrum = torch.fft.rfft(signal.unfold(1, self.window_length, self.hop) * self.window)
            share = MOMENTUM / (1 + MOMENTUM)
            step = spectrum if before is None else torch.sub(spectrum, before, alpha=share)
            before, phase = spectrum, _direction(step)
        return phase

    def _overlap_add(
        self, spectrum: Complex[Tensor, "B K N"], tail: Float[Tensor, "B S"]
    ) -> Float[Tensor, "B S2"]:
        """Adds frames [B, K] to each other and to the tail: [B, K * hop + overlap] samples."""
        if not spectrum.shape[1]:
            return tail  # some FFT libraries refuse an empty input
        frames = torch.fft.irfft(spectrum, n=self.window_length) * self.laid_over
        parts = frames.unflatten(2, (self.window_hops, self.hop)).transpose(1, 2)
        # Cutting the flat tensor into rows that are one part short shifts part o of all frames by o hops.
        rows = spectrum.shape[1] + self.window_hops - 1
        shifted = F.pad(parts, (0, 0, 0, self.window_hops)).flatten(1, 2)[:, : self.window_hops * rows]
        total = shifted.unflatten(1, (self.window_hops, rows)).sum(dim=1).flatten(1)
        total[:, : self.overlap] += tail
        return total


def _direction(spectrum: Complex[Tensor, "*N"]) -> Complex[Tensor, "*N"]:
    """Returns the spectrum divided by its magnitude; 0 where it is 0.

    All operations here are rounded exactly by IEEE 754. torch.sgn and abs of complex numbers are not: their
    last bit depends on whether an element lies in a full vector, and so on the batch size.
    """
    parts = torch.view_as_real(spectrum)
    squares = parts.square()
    size = (squares[..., :1] + squares[..., 1:]).sqrt().clamp_min(1e-12)
    return torch.view_as_complex(parts / size)
