"""Which held-out lines, dialogues and conversations a model is asked to speak: fixed rules."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from itertools import groupby, pairwise

from csm.data.manifest import Corpus, Turn
from csm.generation.voices import minutes_of_speakers
from csm.system.files import hash_key

# A line is long enough to judge its voice and short enough to be said in one breath.
SHORTEST_LINE, LONGEST_LINE, FEWEST_WORDS = 1.2, 6.0, 4
SHORTEST_DIALOGUE, LONGEST_DIALOGUE = 6, 8
# A prompt under 1.6 s tells little of a voice; ten seconds are plenty.
SHORTEST_PROMPT, LONGEST_PROMPT = 1.6, 10.0
# Turns of the main voice in a conversation below which nothing is to be said of how the voice goes on.
FEWEST_OF_MAIN = 3


def held_out_lines(
    corpus: Corpus,
    speaker: str,
    count: int = 8,
    *,
    split: str | None = "test",
    without: Container[str] = (),
) -> list[Turn]:
    """Lines of a speaker, spread over conversations, in the order of the corpus.

    Lines last 1.2 to 6 s, have at least four words and nobody speaking over them. Conversations, in the order
    of the SHA-256 of their ids, take turns in giving one, the next by the SHA-256 of its id, until there are
    `count`.

    Args:
        corpus, speaker, count: Of whom, and at most how many.
        split: None takes all: for speakers that no training has heard.
        without: Ids of turns that are not to be spoken.
    """
    order = [conversation.id for conversation in corpus.conversations]
    pools: dict[str, list[Turn]] = {}
    for turn in corpus.turns(split):
        if turn.speaker == speaker and turn.id not in without and _is_line(turn):
            pools.setdefault(turn.conversation, []).append(turn)
    for pool in pools.values():
        pool.sort(key=lambda turn: hash_key(turn.id), reverse=True)
    chosen: list[Turn] = []
    while len(chosen) < count and any(pools.values()):
        for name in sorted(pools, key=hash_key):
            if pools[name] and len(chosen) < count:
                chosen.append(pools[name].pop())
    return sorted(chosen, key=lambda turn: (order.index(turn.conversation), turn.index))


def lines_of_many(
    corpus: Corpus,
    speakers: Iterable[str],
    count: int,
    *,
    split: str | None = "test",
    without: Container[str] = (),
) -> list[Turn]:
    """Lines of several speakers, as evenly many of each as there are, in the order of the corpus.

    Speakers, in the order of the SHA-256 of their names, take turns in having one more, until there are
    `count`; which lines of a speaker, `held_out_lines` says.
    """
    order = sorted(speakers, key=hash_key)
    whole = sum(len(conversation.turns) for conversation in corpus.conversations)
    there = {name: len(held_out_lines(corpus, name, whole, split=split, without=without)) for name in order}
    shares = dict.fromkeys(order, 0)
    while sum(shares.values()) < count and shares != there:
        for name in order:
            if shares[name] < there[name] and sum(shares.values()) < count:
                shares[name] += 1
    chosen = {
        line.id
        for name, share in shares.items()
        for line in held_out_lines(corpus, name, share, split=split, without=without)
    }
    return [turn for turn in corpus.turns(split) if turn.id in chosen]


def prompt_turns(corpus: Corpus, speaker: str) -> tuple[Turn, ...]:
    """Recordings of a speaker, of any split, that together lend their voice; none where they are too short.

    In the order of the SHA-256 of their ids, those are taken that have a text and nobody speaking over them
    and still fit into ten seconds together. Half of the speaker's recordings and more are left to be spoken.
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
    """The first `count` turns of the longest stretch of a test conversation between known speakers.

    A stretch is of turns in a row that have a text, of two speakers or more. Only one counts whose first
    turns have three of `speaker`; of two as long, the first in the corpus is taken. Empty where there is
    none.
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


def _seconds(turns: Sequence[Turn]) -> float:
    return sum(turn.duration for turn in turns)


def _partner(window: Sequence[Turn], speaker: str) -> str:
    return next(turn.speaker for turn in window if turn.speaker != speaker)


def _changes(window: Sequence[Turn]) -> int:
    return sum(first.speaker != second.speaker for first, second in pairwise(window))
