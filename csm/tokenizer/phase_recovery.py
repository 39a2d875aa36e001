"""Magnitudes of frames to a waveform whose phases are recovered, block by block, as a stream comes in."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

# Iterations of a block and the share by which each leaves the step before behind (fast Griffin-Lim). With the
# true magnitudes of speech, 8 give PESQ-WB 3.2 to 3.9 and random phases 1.5 (docs/LOG.md).
ITERATIONS = 8
MOMENTUM = 0.99


class PhaseStream(NamedTuple):
    """What a stream has not finished.

    Attributes:
        tail: [B, window - hop], what finished frames add to the samples from the first unfinished frame on.
        magnitude: [B, A, bins], of the frames that look ahead, A at most the head's `ahead`.
        phase: complex [B, A, bins], of length 1, their phases so far.
    """

    tail: Tensor
    magnitude: Tensor
    phase: Tensor


class PhaseRecovery(nn.Module):
    """Phases from the overlap of frames; frame t fills samples up to (t + 1) * hop.

    A codec cannot send phases at a few kilobits a second, and a network that predicts them from magnitudes
    gives frames that disagree where they overlap. Here they are made to agree: every block of frames starts
    from the phases that the signal so far has in its window, and eight times takes the phases of the signal
    that all frames make together. `ahead` frames are computed before they are needed and again with the next
    block. Sources: Zhu, Beauregard & Wyse 2007 (real-time iterative spectrogram inversion with look-ahead);
    Perraudin, Balazs & Sondergaard 2013 (fast Griffin-Lim).

    Nothing is learned here and no gradient passes: training compares the magnitudes with the recording's.

    Args:
        hop: Samples between frames.
        window_hops: Length of the Hann window in hops.
        block: Frames that come together: those of a codec frame.
        ahead: Frames that are looked ahead, at most `block`.
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
        self._preroll = 0

    @property
    def overlap(self) -> int:
        """Samples that a frame shares with those before it."""
        return self.window_length - self.hop

    @property
    def delay(self) -> int:
        """Samples that later frames may still change."""
        return self.overlap + self.ahead * self.hop

    def initial_state(self, batch_size: int) -> PhaseStream:
        """Silence before the first frame."""
        self._preroll = self.overlap
        return self._silence(batch_size)

    @torch.no_grad()
    def forward(self, magnitude: Float[Tensor, "B T N"]) -> Float[Tensor, "B S"]:
        """The waveform [B, T * hop] of linear magnitudes [B, T, bins], in fp32.

        In streaming it trails by `delay`, the first calls' are shorter.
        """
        magnitude = magnitude.float()
        state = self.stream_state
        if state is not None:
            ready, self.stream_state = self._blocks(magnitude, state)
            skip = min(self._preroll, ready.shape[1])
            self._preroll -= skip
            return ready[:, skip:]
        ready, state = self._blocks(magnitude, self._silence(len(magnitude)))
        return torch.cat([ready, self._rest(state)], dim=1)[:, self.overlap :]

    @torch.no_grad()
    def flush(self) -> Float[Tensor, "B S"]:
        """The samples [B, S] still held back at the end of a stream: `delay`, or fewer of a shorter stream.

        Raises:
            ValueError: Outside `streaming`.
        """
        if self.stream_state is None:
            raise ValueError("flush belongs inside `with tokenizer.streaming(...)`, after the last frame")
        rest, first = self._rest(self.stream_state), self._preroll
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
        """The samples that are final after these frames, and the state."""
        parts = []
        for part in magnitude.split(self.block, dim=1):
            ready, state = self._advance(part, state, ahead=self.ahead)
            parts.append(ready)
        return torch.cat(parts, dim=1), state

    def _rest(self, state: PhaseStream) -> Float[Tensor, "B S"]:
        """What is left once no frame comes any more."""
        none = state.magnitude[:, :0]
        ready, state = self._advance(none, state, ahead=0)
        return torch.cat([ready, state.tail], dim=1)

    def _advance(
        self, new: Float[Tensor, "B K N"], state: PhaseStream, *, ahead: int
    ) -> tuple[Float[Tensor, "B S"], PhaseStream]:
        """Takes in frames; finishes all but the newest `ahead`."""
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
        """Known phases, then frame by frame those that the signal so far has in the frame's window."""
        known = state.phase.shape[1]
        phases = [state.phase]
        signal = self._overlap_add(magnitude[:, :known] * state.phase, state.tail)[:, known * self.hop :]
        for frame in range(known, magnitude.shape[1]):
            spectrum = torch.fft.rfft(F.pad(signal, (0, self.hop)) * self.window)
            phase = _direction(spectrum)
            # Silence has a phase too, or nothing could begin.
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
        """Phases of frames that make one signal together, the finished past held fixed."""
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
        """Frames [B, K] laid over each other and over what came before: [B, K * hop + overlap] samples."""
        if not spectrum.shape[1]:
            return tail  # some FFT libraries refuse nothing
        frames = torch.fft.irfft(spectrum, n=self.window_length) * self.laid_over
        parts = frames.unflatten(2, (self.window_hops, self.hop)).transpose(1, 2)
        # Rows cut from a flat tensor one part too short: part o of all frames stands o hops later.
        rows = spectrum.shape[1] + self.window_hops - 1
        shifted = F.pad(parts, (0, 0, 0, self.window_hops)).flatten(1, 2)[:, : self.window_hops * rows]
        total = shifted.unflatten(1, (self.window_hops, rows)).sum(dim=1).flatten(1)
        total[:, : self.overlap] += tail
        return total


def _direction(spectrum: Complex[Tensor, "*N"]) -> Complex[Tensor, "*N"]:
    """The spectrum at length 1; 0 where it is nothing.

    Of operations that IEEE 754 rounds exactly: torch.sgn and abs of complex numbers differ in the last bit
    between the vectors and the rest of a row, and so with the batch.
    """
    parts = torch.view_as_real(spectrum)
    squares = parts.square()
    size = (squares[..., :1] + squares[..., 1:]).sqrt().clamp_min(1e-12)
    return torch.view_as_complex(parts / size)
