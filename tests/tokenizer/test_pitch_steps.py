"""The pitch of a known tone is found, noise has none, and the path through candidates is the best one."""

import itertools

import pytest
import torch

from csm.tokenizer.pitch_steps import (
    FIRST_OCTAVE,
    Candidates,
    PitchState,
    initial_pitch_state,
    pitch_candidates,
    pitch_of_frame,
)

RATE, HOP, SIZE = 24_000, 240, 1200


def segments_of(signal: torch.Tensor) -> torch.Tensor:
    """Returns the segments [B, T, 1200] of [B, S] that lie inside the signal."""
    return signal.unfold(1, SIZE, HOP)


def tone(hertz: float, samples: int) -> torch.Tensor:
    """Returns seven harmonics of falling amplitude, [1, S]."""
    place = torch.arange(samples, dtype=torch.float64) / RATE
    wave = sum(torch.sin(2 * torch.pi * hertz * k * place + k) / k for k in range(1, 8))
    return (0.1 * wave).float().unsqueeze(0)


def noise(samples: int, seed: int = 0) -> torch.Tensor:
    return 0.1 * torch.randn(1, samples, generator=torch.Generator().manual_seed(seed))


def tracked(signal: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns pitch in Hz and periodicity of all segments, in frames of eight steps."""
    found, state = pitch_candidates(segments_of(signal), RATE), initial_pitch_state(len(signal))
    pitch, periodic = [], []
    for first in range(0, found.octave.shape[1], 8):
        part = Candidates(*(value[:, first : first + 8] for value in found))
        octave, periodicity, state = pitch_of_frame(part, state)
        pitch.append(2**octave)
        periodic.append(periodicity)
    return torch.cat(pitch, dim=1), torch.cat(periodic, dim=1)


@pytest.mark.parametrize("hertz", [70.0, 91.3, 125.0, 151.7, 200.0, 257.0, 333.3, 400.0])
def test_a_tone_of_known_pitch_is_found_within_one_per_cent(hertz):
    pitch, periodicity = tracked(tone(hertz, SIZE + 15 * HOP))
    assert float((pitch / hertz - 1).abs().max()) < 0.01
    assert float(periodicity.min()) > 0.9


@pytest.mark.parametrize("hertz", [140.0, 230.0, 390.0])
def test_of_multiples_of_a_period_the_shortest_is_the_strongest(hertz):
    """All of them correlate fully: the octave cost must prefer the highest pitch."""
    found = pitch_candidates(segments_of(tone(hertz, SIZE)), RATE)
    real = found.octave[0, 0, 1:][found.strength[0, 0, 1:] > -torch.inf]
    assert len(real) > 1
    assert float(2 ** real[0]) == pytest.approx(hertz, rel=0.01)
    assert float(real[0]) == pytest.approx(float(real.max()), abs=0.01)


@pytest.mark.parametrize("loudness", [1.0, 0.1, 0.0])
def test_noise_and_silence_have_no_pitch(loudness):
    pitch, periodicity = tracked(loudness * noise(SIZE + 31 * HOP))
    torch.testing.assert_close(pitch, torch.full_like(pitch, 2**FIRST_OCTAVE))
    assert float(periodicity.max()) < 0.5


def test_a_tone_below_the_silence_threshold_has_no_pitch():
    pitch, _ = tracked(1e-3 * tone(200, SIZE + 7 * HOP))
    torch.testing.assert_close(pitch, torch.full_like(pitch, 2**FIRST_OCTAVE))


def test_unvoiced_steps_have_the_last_voiced_pitch():
    signal = torch.cat([tone(180, 8 * HOP + SIZE), noise(24 * HOP, 1) * 0.3], dim=1)
    pitch, _ = tracked(signal)
    # The last steps see noise alone; the border's steps are voiced near the tone or not at all.
    assert pitch[0, 0] == pytest.approx(180, rel=0.01)
    last = pitch[0, 14:]
    assert torch.equal(last, last[:1].expand_as(last))
    assert float(last[0]) == pytest.approx(180, rel=0.03)


def test_high_noise_lowers_the_strength_and_not_the_periodicity():
    """Periodicity is that below 1.2 kHz."""
    clean = tone(125, SIZE)
    spectrum = torch.fft.rfft(noise(SIZE, 2))
    spectrum[:, : int(3000 * SIZE / RATE)] = 0
    noisy = clean + torch.fft.irfft(spectrum, SIZE)
    quiet, loud = (pitch_candidates(segments_of(signal), RATE) for signal in (clean, noisy))
    assert float(loud.strength[0, 0, 1]) < float(quiet.strength[0, 0, 1]) - 0.1
    assert float(loud.periodicity[0, 0, 1]) > 0.9
    assert float(loud.periodicity[0, 0, 0]) == float(loud.periodicity[0, 0, 1])


def test_candidates_do_not_depend_on_the_batch_or_on_the_number_of_segments():
    rows = torch.cat([tone(110, SIZE + 6 * HOP), noise(SIZE + 6 * HOP), 0 * noise(SIZE + 6 * HOP)])
    together = pitch_candidates(segments_of(rows), RATE)
    for item in range(3):
        for step in range(7):
            alone = pitch_candidates(segments_of(rows)[item : item + 1, step : step + 1], RATE)
            for one, all_of_them in zip(alone, together, strict=True):
                assert torch.equal(one[0, 0], all_of_them[item, step])


def random_candidates(steps: int, seed: int) -> tuple[Candidates, PitchState]:
    """Returns four candidates a step, the unvoiced one first, and a state before them."""
    draw = torch.Generator().manual_seed(seed)
    octave = 6 + 3 * torch.rand(1, steps + 1, 4, generator=draw, dtype=torch.float64)
    octave[..., 0] = 0
    strength = 0.4 * torch.rand(1, steps + 1, 4, generator=draw, dtype=torch.float64)
    periodicity = torch.rand(1, steps, 4, generator=draw, dtype=torch.float64)
    state = PitchState(strength[:, 0], octave[:, 0], torch.full((1,), FIRST_OCTAVE, dtype=torch.float64))
    return Candidates(octave[:, 1:], strength[:, 1:], periodicity), state


@pytest.mark.parametrize("seed", range(12))
def test_the_path_through_a_frame_is_the_best_of_all_paths(seed):
    """Against all 4^5 of them, with the costs of Boersma (1993): 0.35 an octave, 0.14 a change."""
    found, state = random_candidates(4, seed)

    def score(path: tuple[int, ...]) -> float:
        total, before = float(state.score[0, path[0]]), float(state.octave[0, path[0]])
        for step, place in enumerate(path[1:]):
            now = float(found.octave[0, step, place])
            if now and before:
                total -= 0.35 * abs(now - before)
            elif bool(now) != bool(before):
                total -= 0.14
            total, before = total + float(found.strength[0, step, place]), now
        return total

    best = max(itertools.product(range(4), repeat=5), key=score)[1:]
    octave, periodicity, after = pitch_of_frame(found, state)
    last, expected = FIRST_OCTAVE, []
    for step, place in enumerate(best):
        last = float(found.octave[0, step, place]) or last
        expected.append(last)
    assert octave[0].tolist() == expected
    assert periodicity[0].tolist() == [float(found.periodicity[0, s, place]) for s, place in enumerate(best)]
    assert float(after.score.max()) == 0 and torch.equal(after.octave, found.octave[:, -1])
    assert float(after.last) == expected[-1]
