"""Several renditions of a turn, of which the one with the lowest loss of a reader is kept."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from csm.generation.batch import Request, SpeakingTogether
from csm.generation.readers import Reader
from csm.generation.session import Session
from csm.generation.spoken_turn import Ending
from csm.generation.voices import Voice


@dataclass(frozen=True)
class Candidates:
    """How many renditions of a turn are spoken, and what compares them.

    Attributes:
        count: Number of renditions, at least 1.
        reader: Compares their words (`csm.generation.readers`).
    """

    count: int
    reader: Reader


def speak_best(
    session: Session, text: str, voice: Voice, candidates: Candidates
) -> Generator[Int[Tensor, " K"], None, Ending]:
    """Speaks a text several times and yields the frames of one rendition, as `Session.speak` does.

    The renditions continue the same conversation, each with random numbers of its own. Of those that ended by
    themselves the one with the lowest loss of its reader is kept, of equal ones the first. The session keeps
    it whole, whatever the consumer takes of it; where speaking or reading fails, nothing.

    Args:
        session: Conversation to continue.
        text: Text to speak.
        voice: Voice that speaks.
        candidates: Renditions and their reader.

    Raises:
        ValueError: As `Session.speak`, or the reader refuses a rendition.
    """
    session.refuse_while_busy()
    session.plan_turn(text, voice.number, None)  # what is refused draws no random number
    seeds = torch.randint(2**31, (candidates.count,), generator=session.generator).tolist()
    forks = [session.fork(seed) for seed in seeds]
    together = SpeakingTogether([Request(fork, text, voice.number) for fork in forks])
    for _ in together:
        pass
    spoken = [fork.turns[-1].turn for fork in forks]
    losses = [
        (ending != "end_code" or not turn.codes.shape[1], candidates.reader(turn, voice))
        for ending, turn in zip(together.endings, spoken, strict=True)
    ]
    best = losses.index(min(losses))
    session.adopt(forks[best])
    yield from spoken[best].codes.unbind(dim=1)
    ending = together.endings[best]
    assert ending is not None, "every turn has ended"
    return ending
