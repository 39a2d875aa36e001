"""Pitch and periodicity of a stream, one value every 10 ms, decided once a codec frame.

The candidates are those of P. Boersma (1993; see `csm.audio.prosody`): peaks of the autocorrelation of
Hann-windowed segments, divided by that of the window. Of the Viterbi path through them the steps of a codec
frame are taken when the frame is complete, so that a stream has the pitch of a whole signal.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LOWEST_HZ, HIGHEST_HZ = 64.0, 500.0
# Log2 of the pitch before the first voiced step: 125 Hz.
FIRST_OCTAVE = 6.966

# Boersma's values, as in Praat, for steps of 10 ms.
_VOICING_THRESHOLD = 0.45
_SILENCE_THRESHOLD = 0.03
_OCTAVE_COST = 0.01
_OCTAVE_JUMP_COST = 0.35
_VOICING_CHANGE_COST = 0.14
_CANDIDATES = 6
# Quieter segments are never voiced: -60 dBFS. The loudness that silence is relative to is this at least.
_LOWEST_PEAK, _USUAL_PEAK = 1e-3, 0.1
# Periodicity is that below 1.2 kHz, as in LPCNet's features.
_LOW_PASS_HZ = 1200.0


class PitchState(NamedTuple):
    """State of a stream after a codec frame.

    Attributes:
        score: Score of the best path to each candidate of the last step, float64 [B, C].
        octave: Their log2 frequencies, 0 of the unvoiced one, float64 [B, C].
        last: Log2 of the last voiced pitch, float64 [B].
    """

    score: Tensor
    octave: Tensor
    last: Tensor


class Candidates(NamedTuple):
    """Pitch candidates of steps, the unvoiced one first.

    Attributes:
        octave: Log2 of the frequency in Hz, 0 of the unvoiced one, float64 [B, T, C].
        strength: Strength, float64 [B, T, C].
        periodicity: Correlation below 1.2 kHz at a candidate's lag, -1 to 1; of the unvoiced candidate that
            at the lag of the strongest other one, float64 [B, T, C].
    """

    octave: Tensor
    strength: Tensor
    periodicity: Tensor


def initial_pitch_state(batch_size: int) -> PitchState:
    """Returns the state of silence before a signal."""
    score = torch.full((batch_size, 1 + _CANDIDATES), -torch.inf, dtype=torch.float64)
    score[:, 0] = 0
    return PitchState(score, torch.zeros_like(score), torch.full_like(score[:, 0], FIRST_OCTAVE))


def pitch_candidates(segments: Float[Tensor, "B T N"], sample_rate: int) -> Candidates:
    """Finds the pitch candidates of segments [B, T, N] of a waveform, full scale = 1.

    In double precision: a candidate must not depend on how many segments a call has.
    """
    rows = segments.double()
    rows = rows - rows.mean(dim=-1, keepdim=True)
    size = rows.shape[-1]
    window = torch.hann_window(size, periodic=False, dtype=torch.float64)
    shortest, longest = int(sample_rate / HIGHEST_HZ), int(sample_rate / LOWEST_HZ)
    length = 1 << (size + longest).bit_length()
    power = torch.fft.rfft(rows * window, length).abs().square()
    own = torch.fft.irfft(torch.fft.rfft(window, length).abs().square(), length)[: longest + 2]
    own = own / own[0]
    low = 1 / (1 + (torch.arange(power.shape[-1]) * (sample_rate / length / _LOW_PASS_HZ)) ** 8)

    def correlation(spectrum: Tensor) -> Tensor:
        found = torch.fft.irfft(spectrum, length)[..., : longest + 2]
        # Silence has no correlation instead of an undefined one.
        return found / found[..., :1].clamp_min(1e-9) / own

    whole = correlation(power)
    inner = whole[..., shortest : longest + 1]
    before, after = whole[..., shortest - 1 : longest], whole[..., shortest + 1 : longest + 2]
    # A parabola through a peak and its two neighbours gives lags between samples.
    curve = (2 * inner - before - after).clamp_min(1e-9)
    shift = (0.5 * (after - before) / curve).clamp(-0.5, 0.5)
    octave = torch.log2(sample_rate / (torch.arange(shortest, longest + 1) + shift))
    height = (inner + 0.25 * (after - before) * shift).clamp_max(1.0)
    strength = height + _OCTAVE_COST * (octave - torch.tensor(LOWEST_HZ).log2())
    is_peak = (inner >= before) & (inner > after) & (inner > 0.5 * _VOICING_THRESHOLD)
    strength, lag = torch.where(is_peak, strength, -torch.inf).topk(_CANDIDATES, dim=-1)
    local = rows[..., size // 3 : size - size // 3].abs().amax(dim=-1, keepdim=True)
    quiet = 2 - (local / _USUAL_PEAK) / (_SILENCE_THRESHOLD / (1 + _VOICING_THRESHOLD))
    unvoiced = _VOICING_THRESHOLD + quiet.clamp_min(0)
    unvoiced = torch.where(local < _LOWEST_PEAK, 1e3, unvoiced)
    periodic = correlation(power * low)[..., shortest : longest + 1].gather(-1, lag).clamp(-1, 1)
    periodic = torch.where(strength > -torch.inf, periodic, 0.0)
    return Candidates(
        F.pad(octave.gather(-1, lag), (1, 0)),
        torch.cat([unvoiced, strength], dim=-1),
        torch.cat([periodic[..., :1], periodic], dim=-1),
    )


def pitch_of_frame(
    found: Candidates, state: PitchState
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"], PitchState]:
    """Chooses the candidates of the next codec frame's steps.

    Args:
        found: Candidates of the frame's steps, C of T each.
        state: State after the frame before.

    Returns:
        Log2 of the pitch in Hz, [B, T], that of the last voiced step where there is none; periodicity
        [B, T]; and the new state.
    """
    score, octave, last = state
    steps, came_from = found.octave.shape[1], []
    for step in range(steps):
        new = found.octave[:, step]
        voiced, was = (new > 0).unsqueeze(1), (octave > 0).unsqueeze(2)
        jump = _OCTAVE_JUMP_COST * (new.unsqueeze(1) - octave.unsqueeze(2)).abs()
        cost = torch.where(voiced & was, jump, _VOICING_CHANGE_COST * (voiced != was))
        best, place = (score.unsqueeze(2) - cost).max(dim=1)
        came_from.append(place)
        # Relative to the best path, so that scores of a long stream stay small.
        score = best + found.strength[:, step]
        score, octave = score - score.amax(dim=1, keepdim=True), new
    place = score.argmax(dim=1, keepdim=True)
    places = [place]
    for step in range(steps - 1, 0, -1):
        place = came_from[step].gather(1, place)
        places.append(place)
    chosen = torch.stack(places[::-1], dim=1)
    pitch = found.octave.gather(2, chosen)[..., 0]
    periodicity = found.periodicity.gather(2, chosen)[..., 0]
    held = []
    for step in range(steps):
        last = torch.where(pitch[:, step] > 0, pitch[:, step], last)
        held.append(last)
    return torch.stack(held, dim=1), periodicity, PitchState(score, octave, last)
