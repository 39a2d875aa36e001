"""Chooses the held-out lines, dialogues and conversations of an evaluation by fixed rules."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from itertools import groupby, pairwise

from csm.data.manifest import Corpus, Turn
from csm.generation.corpus_voices import minutes_of_speakers
from csm.system.files import hash_key

# Seconds and words: long enough to recognise the voice, short enough for one breath.
SHORTEST_LINE, LONGEST_LINE, FEWEST_WORDS = 1.2, 6.0, 4
SHORTEST_DIALOGUE, LONGEST_DIALOGUE = 6, 8
# Seconds: a shorter prompt carries too little of a voice, and a longer one adds little.
SHORTEST_PROMPT, LONGEST_PROMPT = 1.6, 10.0
# Fewest turns of the main voice in a conversation: with fewer, its change over time cannot be measured.
FEWEST_OF_MAIN = 3


def held_out_lines(
    corpus: Corpus,
    speaker: str,
    count: int = 8,
    *,
    split: str | None = "test",
    without: Container[str] = (),
) -> list[Turn]:
    """Returns lines of a speaker, spread over conversations, in the order of the corpus.

    Lines last 1.2 to 6 s and have at least four words and no overlapping speech. Conversations, in the order
    of the SHA-256 of their ids, take turns in giving one line, the next by the SHA-256 of its id, until there
    are `count`.

    Args:
        corpus: Corpus with the lines.
        speaker: Name of the speaker.
        count: Largest number of lines.
        split: Split of the corpus; None takes all splits, for speakers that were not trained on.
        without: Ids of turns to leave out.
    """
    pools: dict[str, list[Turn]] = {}
    for turn in corpus.turns(split):
        if turn.speaker == speaker and turn.id not in without and _is_line(turn):
            pools.setdefault(turn.conversation, []).append(turn)
    order = {name: place for place, name in enumerate(pools)}
    for pool in pools.values():
        pool.sort(key=lambda turn: hash_key(turn.id), reverse=True)
    chosen: list[Turn] = []
    while len(chosen) < count and any(pools.values()):
        for name in sorted(pools, key=hash_key):
            if pools[name] and len(chosen) < count:
                chosen.append(pools[name].pop())
    return sorted(chosen, key=lambda turn: (order[turn.conversation], turn.index))


def lines_of_many(
    corpus: Corpus,
    speakers: Iterable[str],
    count: int,
    *,
    split: str | None = "test",
    without: Container[str] = (),
) -> list[Turn]:
    """Returns lines of several speakers in the order of the corpus, as equal in number as the corpus allows.

    Speakers, in the order of the SHA-256 of their names, take turns in getting one more line, until there are
    `count`; `held_out_lines` chooses the lines of each.
    """
    order = sorted(speakers, key=hash_key)
    total = sum(len(conversation.turns) for conversation in corpus.conversations)
    available = {
        name: len(held_out_lines(corpus, name, total, split=split, without=without)) for name in order
    }
    shares = dict.fromkeys(order, 0)
    while sum(shares.values()) < count and shares != available:
        for name in order:
            if shares[name] < available[name] and sum(shares.values()) < count:
                shares[name] += 1
    chosen = {
        line.id
        for name, share in shares.items()
        for line in held_out_lines(corpus, name, share, split=split, without=without)
    }
    return [turn for turn in corpus.turns(split) if turn.id in chosen]


def prompt_turns(corpus: Corpus, speaker: str) -> tuple[Turn, ...]:
    """Returns recordings of a speaker, of any split, that together form a voice prompt; empty if too short.

    Recordings are taken in the order of the SHA-256 of their ids if they have a text and no overlapping
    speech and fit into ten seconds together. At least half of the speaker's recordings are left to be spoken.
    """
    own = [
        turn for turn in corpus.turns() if turn.speaker == speaker and turn.text.strip() and not turn.overlap
    ]
    chosen: list[Turn] = []
    for turn in sorted(own, key=lambda turn: hash_key(turn.id)):
        if len(chosen) < len(own) // 2 and _seconds([*chosen, turn]) <= LONGEST_PROMPT:
            chosen.append(turn)
    return tuple(chosen) if _seconds(chosen) >= SHORTEST_PROMPT else ()


def held_out_conversation(
    corpus: Corpus, speaker: str, known: Container[str], count: int = 20
) -> tuple[Turn, ...]:
    """Returns the first `count` turns of the longest stretch of a test conversation between known speakers.

    A stretch consists of consecutive turns with a text, by two speakers or more, of which the first `count`
    have at least three of `speaker`. Of two stretches of one length the first in the corpus is taken. Empty
    if there is no stretch.
    """
    best: tuple[Turn, ...] = ()
    for conversation in corpus.conversations:
        if conversation.split == "test":
            for usable, group in groupby(
                conversation.turns, key=lambda turn: turn.speaker in known and bool(turn.text.strip())
            ):
                turns = tuple(group)
                names = [turn.speaker for turn in turns[:count]]
                enough = len(set(names)) > 1 and names.count(speaker) >= FEWEST_OF_MAIN
                if usable and enough and len(turns) > len(best):
                    best = turns
    return best[:count]


def held_out_dialogues(
    corpus: Corpus, speaker: str, count: int = 2, *, voices: Container[str] | None = None
) -> list[tuple[Turn, ...]]:
    """Returns stretches of six to eight consecutive test turns between a speaker and one other of `voices`.

    Stretches with four changes of speaker come before those with fewer, then those whose partner has more
    training minutes, then those with more changes, then those with fewer seconds. Other partners in other
    conversations come before the same ones again; no turn is taken twice.

    Args:
        corpus: Corpus with the dialogues.
        speaker: Name of the speaker.
        count: Largest number of dialogues.
        voices: Speakers of the train split that have a voice; None: all of them.
    """
    minutes = {
        name: time for name, time in minutes_of_speakers(corpus).items() if voices is None or name in voices
    }
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


def _seconds(turns: Sequence[Turn]) -> float:
    return sum(turn.duration for turn in turns)


def _partner(window: Sequence[Turn], speaker: str) -> str:
    return next(turn.speaker for turn in window if turn.speaker != speaker)


def _changes(window: Sequence[Turn]) -> int:
    return sum(first.speaker != second.speaker for first, second in pairwise(window))
