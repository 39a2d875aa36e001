"""A listener of recordings asks once a pause, and its answer counts from when it is there."""

import pytest
import torch

from csm.conversation.listener import RATE, ListenerConfig
from csm.conversation.turn_end import Patience, SilenceAlone
from csm.evaluation.conversation.recorded_listener import RecordedListener


class LoudIsSpeech:
    def __call__(self, window: torch.Tensor) -> float:
        return float(window.square().mean().sqrt() > 0.05)


class Ends:
    """Takes every pause for an end."""

    name, silence = "ends", 2.0

    def __init__(self) -> None:
        self.classified: list[torch.Tensor] = []

    def classify(self, turn: torch.Tensor):
        self.classified.append(turn)
        yield Patience(0.3, "shift")


def tone(seconds: float) -> torch.Tensor:
    return 0.3 * torch.sin(torch.arange(round(seconds * RATE)) / 5)


def times(turn_end, samples: torch.Tensor, cost: float = 0.0) -> list[float]:
    listener = RecordedListener(ListenerConfig(), turn_end, LoudIsSpeech(), cost)
    changes = [change for part in samples.split(512) for change in listener.push(part)]
    return [change.at for change in changes if change.change == "ended"]


@pytest.mark.parametrize("cost, end", [(0.0, 2.3), (0.1, 2.3), (0.4, 2.58)])
def test_a_classification_ends_the_turn_once_it_is_there(cost, end) -> None:
    (found,) = times(Ends(), torch.cat([torch.zeros(RATE), tone(1.0), torch.zeros(2 * RATE)]), cost)
    assert end <= found < end + 0.07


def test_the_turn_is_classified_from_its_onset_to_the_pause() -> None:
    classifier = Ends()
    first = torch.cat([torch.zeros(40 * RATE), tone(1.0), torch.zeros(2 * RATE)])
    assert len(times(classifier, torch.cat([first, tone(0.5), torch.zeros(RATE)]))) == 2
    # Windows of 32 ms round the onset down and the pause up.
    assert [len(turn) / RATE for turn in classifier.classified] == pytest.approx([1.41, 0.91], abs=0.05)
    assert all(float(turn[: RATE // 10].abs().max()) == 0 for turn in classifier.classified)


def test_silence_alone_is_the_listeners_rule() -> None:
    samples = torch.cat([tone(1.0), torch.zeros(RATE // 4), tone(0.5), torch.zeros(RATE)])
    (found,) = times(SilenceAlone(0.5), samples)
    assert 2.25 <= found < 2.32
    assert len(times(SilenceAlone(0.2), samples)) == 2
