"""What separates a backchannel from a short interruption, both spoken over the voice: length, or the words.

"Mhm" and "Yeah" acknowledge and leave the floor to the voice; "No." and "Who are you?" take it. Both are
shorter than a second.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from jaxtyping import Float
from torch import Tensor

from csm.conversation.transcriber import FastTranscriber, Transcriber
from csm.conversation.worker import Task
from csm.system.log import log

BACKCHANNELS = ("words", "length")
# English acknowledgements and short assessments (tags b and ba of SWBD-DAMSL, Jurafsky et al. 1997), with the
# spellings in which tiny.en writes them: "Aha", "Baha" and "Ah" for recordings of "Uh huh" and "Oh".
_ONE = (
    r"m+(?:h+m+)?|h+m+|b?u+h huh|huh huh|b?aha+|a+h+|o+h+|yeah|yep|yup|yes|okay|ok|right|all ?right|sure|"
    r"i see|of course|exactly|certainly|good|great|nice|cool|wow|really"
)
_ALL = re.compile(rf"(?:(?:{_ONE})(?: |$))*")


class ShortSpeech(NamedTuple):
    """What was recognised of short speech over the voice: its words, and whether it is a backchannel."""

    text: str
    backchannel: bool


@dataclass
class Question:
    """Short speech over the voice whose words are not recognised yet; times in samples of the clock.

    Attributes:
        task: Recognition.
        since: End of the speech.
        deadline: When a voice that is held resumes without an answer.
        ended: Whether the silence after it has lasted long enough to end a turn.
    """

    task: Task
    since: int
    deadline: int
    ended: bool = False


class Backchannels(Protocol):
    """Separates backchannels from short interruptions."""

    @property
    def name(self) -> str:
        """What decides, for the log."""

    def classify(self, speech: Float[Tensor, " S"]) -> Task | None:
        """Returns the work of classifying short speech, which yields one ShortSpeech.

        Args:
            speech: float32 [S] at 16 kHz, the speech with a margin on both sides.

        Returns:
            None where its length alone decides: it is a backchannel.
        """


class LengthAlone:
    """Speech over the voice that is short is a backchannel, whatever its words."""

    name = "length"

    def classify(self, speech: Float[Tensor, " S"]) -> None:
        """Classifies nothing."""


class ByWords:
    """Short speech is a backchannel if all its words are; speech without words is one, too.

    Args:
        transcriber: Recogniser of the words; may be shared by conversations.
    """

    def __init__(self, transcriber: Transcriber) -> None:
        self._transcriber = transcriber
        self.name = transcriber.name

    def classify(self, speech: Float[Tensor, " S"]) -> Task:
        """Yields the words of the speech, and whether they are a backchannel."""
        text = self._transcriber(speech)
        yield ShortSpeech(text, is_backchannel(text))


def is_backchannel(text: str) -> bool:
    """Returns whether all words of a text are those of backchannels; True for a text without words."""
    return _ALL.fullmatch(" ".join(words_of(text))) is not None


def words_of(text: str) -> list[str]:
    """Returns the words of a text in lower case, contractions whole."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())


def available_backchannels(name: str, transcriber: Transcriber) -> Backchannels:
    """Returns what decides, one of BACKCHANNELS; without tiny.en length does, and one line says so.

    Args:
        name: "words" or "length".
        transcriber: Recogniser of the user's turns, which is taken for short speech if it is tiny.en: the
            voice's own model is not precise enough to stop the voice by single words.
    """
    if name == "length":
        return LengthAlone()
    try:
        return ByWords(transcriber if isinstance(transcriber, FastTranscriber) else FastTranscriber())
    except ValueError as error:
        log.warning("backchannels are separated from interruptions by length alone: %s", error)
        return LengthAlone()
