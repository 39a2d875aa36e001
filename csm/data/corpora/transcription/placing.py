"""Places a text that the user has: recognised words give the times, the user's words the text.

The words of both are compared as sequences; a word that both have takes the recognised time, words between
two such words share the speech between them: pauses between turns hold none.
"""

from __future__ import annotations

import bisect
import difflib
import unicodedata
from collections.abc import Sequence

import numpy as np

from csm.data.word_times import Word

FEWEST_ALIKE = 0.3  # share of the user's words that are recognised too; below, it is another text


def place_in_turns(
    words: Sequence[str], turns: Sequence[tuple[float, float]], recognised: Sequence[Sequence[Word]]
) -> list[tuple[Word, ...]]:
    """Returns the user's words of each turn, with their times.

    Args:
        words: Of all turns, in order.
        turns: Start and end of each turn in seconds, in order; they may overlap.
        recognised: Words of each turn.

    Raises:
        ValueError: Too few of them are recognised: the text is not what the recording says.
    """
    lengths = [end - start for start, end in turns]
    # Where each turn starts if the turns followed each other without pauses and overlaps.
    joined = [0.0, *np.cumsum(lengths)[:-1].tolist()] if turns else []
    moved = [
        _moved(word, start - turns[number][0], start, start + lengths[number])
        for number, (start, spoken) in enumerate(zip(joined, recognised, strict=True))
        for word in sorted(spoken, key=lambda word: word.start)
    ]
    found: list[list[Word]] = [[] for _ in turns]
    for word in place(words, moved):
        number = max(0, bisect.bisect_right(joined, (word.start + word.end) / 2) - 1)
        start, end = turns[number]
        found[number].append(_moved(word, start - joined[number], start, end))
    return [tuple(spoken) for spoken in found]


def place(words: Sequence[str], recognised: Sequence[Word]) -> list[Word]:
    """Returns the user's words with times.

    Raises:
        ValueError: Too few of them are recognised: the text is not what the recording says.
    """
    mine, theirs = [_plain(word) for word in words], [_plain(word.text) for word in recognised]
    blocks = difflib.SequenceMatcher(None, mine, theirs, autojunk=False).get_matching_blocks()
    anchors = {b.a + i: recognised[b.b + i] for b in blocks for i in range(b.size) if mine[b.a + i]}
    if len(anchors) < FEWEST_ALIKE * len(words):
        raise ValueError(
            f"{len(anchors)} of {len(words)} words of the text are recognised: expected at least "
            f"{FEWEST_ALIKE:.0%}; check that text and recording belong together"
        )
    known = sorted(anchors)
    # A word without a time starts in proportion between the end of one before and the start of one after.
    places = [x for i in known for x in (i, i + 1)]
    times = [x for i in known for x in (anchors[i].start, anchors[i].end)]
    edges = np.interp(np.arange(len(words) + 1), *_increasing(places, times)) if places else np.zeros(1)
    placed = []
    for index, word in enumerate(words):
        if index in anchors:
            placed.append(Word(word, anchors[index].start, anchors[index].end))
        else:
            placed.append(Word(word, float(edges[index]), float(edges[index + 1])))
    return placed


def _moved(word: Word, by: float, low: float, high: float) -> Word:
    """Returns a word that is moved in time, and limited to an interval."""
    return Word(word.text, *(min(max(time + by, low), high) for time in (word.start, word.end)))


def _increasing(places: list[int], times: list[float]) -> tuple[list[float], list[float]]:
    """Moves ends just before the starts at the same place, as interpolation needs different places."""
    moved = [place - 1e-6 if number % 2 else float(place) for number, place in enumerate(places)]
    return moved, times


def _plain(word: str) -> str:
    folded = unicodedata.normalize("NFKC", word).casefold()
    return "".join(character for character in folded if character.isalnum())
