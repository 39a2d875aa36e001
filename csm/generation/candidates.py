"""Several renditions of a turn, of which the one is kept whose words are read best."""

from __future__ import annotations

from collections.abc import Callable, Generator

import torch
from jaxtyping import Int
from torch import Tensor

from csm.generation.batch import Request, SpeakingTogether
from csm.generation.session import Session
from csm.generation.spoken_turn import Ending
from csm.sequences.turns import TurnFrames


def speak_best(
    session: Session, text: str, speaker: int, candidates: int, loss: Callable[[TurnFrames], float]
) -> Generator[Int[Tensor, " K"], None, Ending]:
    """Speaks a text several times and yields the frames of one rendition, as `Session.speak` does.

    The renditions continue the same conversation, the first one with the session's random numbers, each
    other one with its own. Of those that ended by themselves the one with the lowest loss is kept, of equal
    ones the first. The session keeps it whole, whatever the consumer takes of it.

    Args:
        session: Conversation to continue.
        text: Text to speak.
        speaker: Speaker index.
        candidates: Number of renditions, at least 1.
        loss: Compares the renditions; see `csm.generation.readers`.

    Raises:
        ValueError: As `Session.speak`.
    """
    seeds = torch.randint(2**31, (candidates - 1,), generator=session.generator).tolist()
    sessions = [session, *map(session.fork, seeds)]
    together = SpeakingTogether([Request(one, text, speaker) for one in sessions])
    for _ in together:
        pass
    spoken = [one.turns[-1].turn for one in sessions]
    losses = [
        (ending != "end_code" or not turn.codes.shape[1], loss(turn))
        for ending, turn in zip(together.endings, spoken, strict=True)
    ]
    best = losses.index(min(losses))
    if best:
        session.take_back(1)
        session.listen(spoken[best])
    yield from spoken[best].codes.unbind(dim=1)
    ending = together.endings[best]
    assert ending is not None, "every turn has ended"
    return ending
