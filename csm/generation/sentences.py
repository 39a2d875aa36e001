"""Splits text that arrives in pieces into sentences that can be spoken one by one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

# A sentence ends where its mark is followed by space: "3.5" and "e.g.this" are not cut.
# Nor does it end at a title or an abbreviation that stands before its noun, nor at one that runs on.
_OPEN = ("Dr", "Mr", "Mrs", "Ms", "St", "Prof", "Gen", "Sgt", "Capt", "Gov", "Sen", "Rev", "Lt", "vs") + (
    "e.g",
    "i.e",
    "approx",
)
END = re.compile("".join(rf"(?<!\b{re.escape(word)}(?=\.))" for word in _OPEN) + r"""[.!?…]["'”’)\]]*\s+""")
# In characters. Longer sentences are cut at a comma or else between words: training turns are not longer.
LONGEST_SENTENCE = 160


def sentences(pieces: Iterable[str]) -> Iterator[str]:
    """Yields the sentences of a text, each as soon as it is complete; the last one at the end of the pieces.

    Args:
        pieces: Pieces of the text, cut anywhere; spaces at their ends count.

    Raises:
        ValueError: A word has more than LONGEST_SENTENCE characters; raised when it is reached.
    """
    waiting = ""
    for piece in pieces:
        waiting += piece
        while (end := END.search(waiting)) is not None:
            yield from _short_parts(waiting[: end.end()])
            waiting = waiting[end.end() :]
    yield from _short_parts(waiting)


def _short_parts(sentence: str) -> Iterator[str]:
    """Yields the sentence, in parts of at most LONGEST_SENTENCE characters."""
    rest = " ".join(sentence.split())
    while len(rest) > LONGEST_SENTENCE:
        head = rest[: LONGEST_SENTENCE + 1]
        cut = max(head.rfind(mark) + 1 for mark in (", ", "; ", ": "))
        if cut < LONGEST_SENTENCE // 2:
            cut = head.rfind(" ")
        if cut <= 0:
            word = rest.split(" ", 1)[0]
            raise ValueError(
                f"a word of {len(word)} characters ({word[:20]}...) is too long to speak: expected at most "
                f"{LONGEST_SENTENCE}"
            )
        yield rest[:cut].strip()
        rest = rest[cut:].strip()
    if rest:
        yield rest
