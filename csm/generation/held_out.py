"""Which held-out lines and dialogues a model is asked to speak: a fixed rule over the test split."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence
from itertools import pairwise

from csm.data.manifest import Corpus, Turn
from csm.generation.voices import minutes_of_speakers

# A line is long enough to judge its voice and short enough to be said in one breath.
SHORTEST_LINE, LONGEST_LINE, FEWEST_WORDS = 1.2, 6.0, 4
SHORTEST_DIALOGUE, LONGEST_DIALOGUE = 6, 8


def held_out_lines(corpus: Corpus, speaker: str, count: int = 8) -> list[Turn]:
    """Test lines of a speaker, spread over conversations, in the order of the corpus.

    Lines last 1.2 to 6 s, have at least four words and nobody speaking over them. Conversations, in the order
    of the SHA-256 of their ids, take turns in giving one, the next by the SHA-256 of its id, until there are
    `count`.
    """
    order = [conversation.id for conversation in corpus.conversations]
    pools: dict[str, list[Turn]] = {}
    for turn in corpus.turns("test"):
        if turn.speaker == speaker and _is_line(turn):
            pools.setdefault(turn.conversation, []).append(turn)
    for pool in pools.values():
        pool.sort(key=lambda turn: _digest(turn.id), reverse=True)
    chosen: list[Turn] = []
    while len(chosen) < count and any(pools.values()):
        for name in sorted(pools, key=_digest):
            if pools[name] and len(chosen) < count:
                chosen.append(pools[name].pop())
    return sorted(chosen, key=lambda turn: (order.index(turn.conversation), turn.index))


def held_out_dialogues(corpus: Corpus, speaker: str, count: int = 2) -> list[tuple[Turn, ...]]:
    """Stretches of six to eight test turns in a row between a speaker and one other that training has heard.

    A stretch that goes to and fro (four changes of speaker) comes before one that does not, then the partner
    with more training minutes, then more changes, then fewer seconds. Other partners in other conversations
    come before the same ones again; no turn is taken twice.
    """
    minutes = minutes_of_speakers(corpus)
    stretches: list[tuple[Turn, ...]] = []
    for conversation in corpus.conversations:
        if conversation.split == "test":
            for length in range(SHORTEST_DIALOGUE, LONGEST_DIALOGUE + 1):
                turns = conversation.turns
                windows = (turns[first : first + length] for first in range(len(turns) - length + 1))
                stretches.extend(window for window in windows if _is_dialogue(window, speaker, minutes))

    def rank(window: tuple[Turn, ...]) -> tuple[float, ...]:
        seconds = sum(turn.duration for turn in window)
        return (-min(_changes(window), 4), -minutes[_partner(window, speaker)], -_changes(window), seconds)

    stretches.sort(key=rank)
    chosen: list[tuple[Turn, ...]] = []
    for fresh in (("partner", "conversation"), ("conversation",), ()):
        for window in stretches:
            used = {turn.id for other in chosen for turn in other}
            partners = {_partner(other, speaker) for other in chosen}
            if len(chosen) == count or used & {turn.id for turn in window}:
                continue
            if "partner" in fresh and _partner(window, speaker) in partners:
                continue
            if "conversation" in fresh and window[0].conversation in {
                other[0].conversation for other in chosen
            }:
                continue
            chosen.append(window)
    return chosen


def _is_line(turn: Turn) -> bool:
    long_enough = SHORTEST_LINE <= turn.duration <= LONGEST_LINE
    return long_enough and len(turn.text.split()) >= FEWEST_WORDS and not turn.overlap


def _is_dialogue(window: Sequence[Turn], speaker: str, known: Container[str]) -> bool:
    speakers = {turn.speaker for turn in window}
    if len(speakers) != 2 or speaker not in speakers or not all(name in known for name in speakers):
        return False
    return all(turn.text.strip() and turn.duration <= 2 * LONGEST_LINE for turn in window)


def _partner(window: Sequence[Turn], speaker: str) -> str:
    return next(turn.speaker for turn in window if turn.speaker != speaker)


def _changes(window: Sequence[Turn]) -> int:
    return sum(first.speaker != second.speaker for first, second in pairwise(window))


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()
