"""A pause ends a turn after a fixed silence, or after the one that was classified from the turn's audio."""

import importlib.util
import threading
import time
from pathlib import Path

import pytest
import torch

from csm.conversation.listener import Listener, ListenerConfig
from csm.conversation.turn_end import Patience, SilenceAlone
from csm.conversation.worker import ThreadWorker

spec = importlib.util.spec_from_file_location("user_audio", Path(__file__).with_name("conftest.py"))
user_audio = importlib.util.module_from_spec(spec)
spec.loader.exec_module(user_audio)
hold, silence, sound, RATE = user_audio.hold, user_audio.silence, user_audio.sound, user_audio.RATE


class LongTurnsEnd:
    """Takes pauses of turns above a length for ends; notes the length of what it classified."""

    name, silence = "length", 1.2

    def __init__(self, seconds: float = 1.2) -> None:
        self.seconds = seconds
        self.classified: list[float] = []

    def classify(self, turn: torch.Tensor):
        self.classified.append(len(turn) / 16_000)
        yield Patience(*((0.3, "shift") if self.classified[-1] > self.seconds else (1.2, "hold")))


def test_a_classified_end_comes_sooner_than_silence_alone(conversation) -> None:
    ends = []
    for turn_end in (SilenceAlone(0.5), LongTurnsEnd(0.0)):
        live = conversation(turn_end=turn_end)
        hold(live, sound(1.0), silence(1.0))
        ends.append(live.log.of("user_ends")[0].at / RATE - 1.0)
    assert 0.5 <= ends[0] < 0.57 and 0.3 <= ends[1] < 0.36


def test_a_hesitating_user_is_waited_for_and_the_whole_turn_is_classified_again(conversation) -> None:
    classifier = LongTurnsEnd()
    live = conversation(turn_end=classifier)
    hold(live, sound(0.6), silence(0.8), sound(0.6), silence(0.6))
    assert [event.text for event in live.log.of("pause")] == ["hold", "shift"]
    assert {event.source for event in live.log.of("pause")} == {"length"}
    (ended,) = live.log.of("user_ends")
    assert abs(ended.since - 2.0 * RATE) < 0.05 * RATE and ended.at < 2.4 * RATE
    assert [round(seconds, 1) for seconds in classifier.classified] == pytest.approx([0.8, 2.2], abs=0.11)


def test_the_longest_silence_ends_a_turn_that_was_held(conversation) -> None:
    live = conversation(turn_end=LongTurnsEnd())
    hold(live, sound(0.6), silence(1.1))
    assert not live.log.of("user_ends")
    hold(live, silence(0.3))
    assert 1.8 * RATE <= live.log.of("user_ends")[0].at <= 1.9 * RATE


def test_an_answer_that_comes_after_the_user_spoke_on_counts_for_nothing(conversation) -> None:
    live = conversation(turn_end=LongTurnsEnd(0.0), charge=0.5)
    hold(live, sound(0.6), silence(0.4), sound(1.0))
    assert not live.log.of("pause", "user_ends")
    hold(live, silence(0.5))
    assert not live.log.of("user_ends"), "0.3 s would have ended the turn; the answer takes 0.5 s"


def test_the_users_audio_is_taken_while_a_classification_runs(conversation) -> None:
    class Waits(LongTurnsEnd):
        def classify(self, turn: torch.Tensor):
            assert released.wait(60), "the caller waits for the classifier"
            yield from super().classify(turn)

    released = threading.Event()
    live = conversation(turn_end=Waits(0.0), worker=ThreadWorker())
    hold(live, sound(0.6), silence(0.9))
    assert not live.log.of("pause", "user_ends")
    released.set()
    end = time.monotonic() + 60
    while not live.log.of("pause") and time.monotonic() < end:
        live.speak(0)
        time.sleep(0.01)
    hold(live, silence(0.05))
    assert live.log.of("user_ends") and live.now <= 1.6 * RATE


def test_typed_turns_are_not_classified(conversation) -> None:
    classifier = LongTurnsEnd()
    live = conversation(turn_end=classifier)
    live.type("hello")
    hold(live, silence(1.0))
    assert not classifier.classified and live.log.of("voice_begins")


def test_a_silence_below_a_pause_is_refused() -> None:
    with pytest.raises(ValueError, match="silence is 0.1: expected at least that of a pause, 0.16"):
        Listener(ListenerConfig(), lambda window: 0.0, silence=0.1)
    with pytest.raises(ValueError, match="silence is 0: expected above 0"):
        SilenceAlone(0)
