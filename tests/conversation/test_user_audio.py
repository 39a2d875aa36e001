"""The user's newest audio is kept at two rates and cut by the conversation's clock."""

import pytest
import torch

from csm.conversation.user_audio import MARGIN_S, UserAudio

CLOCK, LISTENED, SOURCE = 8_000, 16_000, 48_000


def tone(seconds: float) -> torch.Tensor:
    return 0.3 * torch.sin(2 * torch.pi * 300 * torch.arange(round(seconds * SOURCE)) / SOURCE)


def push(audio: UserAudio, samples: torch.Tensor) -> int:
    """Pushes blocks of 20 ms; returns the samples that the listener gets."""
    count = 0
    for part in samples.split(SOURCE // 50):
        count += len(audio.push(part, SOURCE))
        audio.forget()
    return count


def test_an_interval_has_its_sound_at_both_rates_and_a_margin() -> None:
    audio = UserAudio(CLOCK, LISTENED, 30.0)
    count = push(audio, torch.cat([torch.zeros(SOURCE), tone(0.5), torch.zeros(SOURCE)]))
    assert abs(count - 2.5 * LISTENED) <= 0.05 * LISTENED
    for kept, rate in zip(audio.between(CLOCK, round(1.5 * CLOCK)), (CLOCK, LISTENED), strict=True):
        margin = round(MARGIN_S * rate)
        assert len(kept) == round(0.5 * rate) + 2 * margin
        assert kept[: margin - rate // 100].abs().max() < 1e-3, "silence before the sound"
        assert kept[margin + rate // 100 : -margin - rate // 100].square().mean().sqrt() > 0.2
        assert kept[-margin + rate // 100 :].abs().max() < 1e-3


def test_what_is_older_than_the_longest_turn_is_dropped_and_the_clock_stays() -> None:
    audio = UserAudio(CLOCK, LISTENED, 2.0)
    push(audio, torch.cat([torch.zeros(5 * SOURCE), tone(0.5), torch.zeros(SOURCE // 2)]))
    voice, words = audio.between(5 * CLOCK, round(5.5 * CLOCK))
    assert voice[round(0.3 * CLOCK) : round(0.6 * CLOCK)].square().mean().sqrt() > 0.2
    assert words[round(0.3 * LISTENED) : round(0.6 * LISTENED)].square().mean().sqrt() > 0.2
    long, _ = audio.between(0, 6 * CLOCK)
    assert len(long) <= 3.2 * CLOCK


@pytest.mark.parametrize(
    ("shape", "rate", "message"), [((2, 5), SOURCE, "shape"), ((5,), 100, "rate is 100")]
)
def test_bad_audio_is_refused(shape, rate, message) -> None:
    with pytest.raises(ValueError, match=message):
        UserAudio(CLOCK, LISTENED, 2.0).push(torch.zeros(shape), rate)
