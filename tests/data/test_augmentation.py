"""Length and pitch of a changed clip follow its speed; a narrow band loses only what lies above it."""

import numpy as np
import torch

from csm.data.augmentation import NARROW_RATES, augmented

RATE = 24_000


def tone(hertz, seconds=1.0):
    return torch.sin(2 * torch.pi * hertz * torch.arange(int(RATE * seconds)) / RATE) * 0.5


def peak(samples):
    power = torch.fft.rfft(samples * torch.hann_window(len(samples))).abs()
    return float(power.argmax()) * RATE / len(samples)


def draw(clip, seed=0, speeds=(1.0,), narrow_share=0.0):
    return augmented(clip, RATE, np.random.default_rng(seed), speeds=speeds, narrow_share=narrow_share)


def test_nothing_is_changed_where_nothing_is_asked_for():
    clip = tone(300)
    found = draw(clip)
    assert found.speed == 1 and torch.equal(found.samples, clip)


def test_speed_moves_length_and_pitch_together():
    for speed in (0.85, 1.15):
        found = draw(tone(400), speeds=(speed,))
        assert found.speed == speed
        assert abs(len(found.samples) * speed - RATE) <= 2
        assert abs(peak(found.samples) - 400 * speed) < 3


def test_a_narrow_clip_keeps_what_a_telephone_passes_and_loses_the_rest():
    for seed in range(5):
        low, high = draw(tone(1000), seed, narrow_share=1.0).samples, draw(tone(9000), seed, narrow_share=1.0)
        assert len(low) == RATE
        assert float(low.square().mean()) > 0.9 * float(tone(1000).square().mean())
        assert float(high.samples.square().mean()) < 1e-3 * float(tone(9000).square().mean())
    assert NARROW_RATES[1] / 2 < 9000


def test_all_speeds_come_and_a_seed_gives_the_same_clip():
    speeds = (0.9, 1.0, 1.1)
    found = [draw(tone(200, 0.1), seed, speeds, 0.5) for seed in range(40)]
    assert {one.speed for one in found} == set(speeds)
    again = [draw(tone(200, 0.1), seed, speeds, 0.5) for seed in range(40)]
    assert all(torch.equal(a.samples, b.samples) for a, b in zip(found, again, strict=True))
