"""The listener follows recorded speech, and takes noises for no speech."""

import pytest
import torch

from csm.audio.files import read_audio
from csm.conversation.listener import RATE, Listener, ListenerConfig


@pytest.fixture
def line(excerpt) -> torch.Tensor:
    """A recorded line of 2.3 s between silences."""
    turn = next(turn for turn in excerpt.turns("test") if "stay put" in turn.text)
    spoken = read_audio(excerpt.root / turn.audio, sample_rate=RATE)[0]
    return torch.cat([torch.zeros(RATE), spoken, torch.zeros(RATE)])


def heard(samples: torch.Tensor, block: int = 320) -> list:
    listener = Listener(ListenerConfig())
    return [change for part in samples.split(block) for change in listener.push(part)]


def test_a_recorded_line_is_one_turn_however_it_is_cut(line) -> None:
    changes = heard(line)
    assert [change.change for change in changes] == ["onset", "long", "pause", "ended"]
    assert 1.0 <= changes[0].since <= 1.5 and changes[-1].since < len(line) / RATE - 1.0 + 0.1
    assert heard(line, block=1111) == changes


@pytest.mark.parametrize("kind", ["burst", "slam", "hum"])
def test_noise_is_no_speech(kind) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 0.5 * torch.randn(RATE // 2, generator=generator)
    time = torch.arange(RATE // 2) / RATE
    sound = {"burst": noise, "slam": noise * torch.exp(-12 * time), "hum": torch.sin(300 * time)}[kind]
    assert not heard(torch.cat([torch.zeros(RATE), sound, torch.zeros(RATE)]))


def test_another_persons_distant_speech_is_not_the_users(line) -> None:
    changes = heard(torch.cat([line, 0.05 * line, line]))
    assert [change.change for change in changes] == ["onset", "long", "pause", "ended"] * 2


@pytest.mark.parametrize(
    "wrong", [{"silence": 0.6}, {"shortest_speech": 1.2}, {"pause": 0.0}, {"distance": 0.0}]
)
def test_thresholds_that_contradict_each_other_are_refused(wrong) -> None:
    with pytest.raises(ValueError, match="expected"):
        ListenerConfig(**wrong)
