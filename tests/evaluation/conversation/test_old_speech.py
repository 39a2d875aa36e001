"""A stretch of audio is found in the recording that it is part of, and in no other."""

import pytest
import torch

from csm.evaluation.conversation.old_speech import SAME, likeness, stretch_after

RATE = 8000


@pytest.fixture
def noises() -> torch.Tensor:
    return torch.randn(2, 5 * RATE, generator=torch.Generator().manual_seed(0))


def test_a_part_is_found_at_every_place_and_loudness(noises) -> None:
    for first in range(0, 4 * RATE, 3001):
        for factor in (0.01, 1.0, 30.0):
            assert likeness(factor * noises[0, first : first + 800], noises[0]) > 0.9999
    assert likeness(noises[0], noises[0]) > 0.9999


def test_another_recording_is_not_the_same(noises) -> None:
    assert likeness(noises[1, :800], noises[0]) < 0.5
    half = torch.cat([noises[0, 1000:1400], noises[1, :400]])
    assert likeness(half, noises[0]) < SAME
    assert likeness(-noises[0, :800], noises[0]) < 0.5


def test_the_silence_of_a_reply_is_like_nothing(noises) -> None:
    reply = noises[0].clone()
    reply[RATE : 2 * RATE] = 1e-9 * noises[1, :RATE]
    assert likeness(noises[1, 100:900], reply) < 0.5


def test_silence_and_what_is_longer_are_in_no_reply(noises) -> None:
    assert likeness(torch.zeros(800), noises[0]) == likeness(noises[0], noises[1, :800]) == 0
    assert likeness(torch.zeros(0), noises[0]) == likeness(noises[0], torch.zeros(0)) == 0
    assert likeness(noises[0, :800], torch.zeros(RATE)) == 0


def test_a_stretch_ends_with_the_speech_or_at_its_longest(noises) -> None:
    spans = {0.02: 0.09, 0.25: 0.24, 3.0: 0.39}
    for length, expected in spans.items():
        found = stretch_after(noises[0], 1.0, 1.0 + length, RATE)
        assert torch.equal(found, noises[0, 8080 : 8080 + round(expected * RATE)])
    assert not len(stretch_after(noises[0], 5.0, 5.0, RATE))
