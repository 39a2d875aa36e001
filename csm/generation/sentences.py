"""Text in pieces, as it is typed or generated, to sentences that can be spoken one by one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

# A sentence is over where its mark is followed by space: "3.5" and "e.g.this" are not cut.
END = re.compile(r"""[.!?…]["'”’)\]]*\s+""")
# Longer stretches are cut at a comma or else between words: voices are trained on lines of a breath or two.
LONGEST_SENTENCE = 160


def sentences(pieces: Iterable[str]) -> Iterator[str]:
    """Sentences of a text, each as soon as it is complete; the last one at the end of the pieces.

    Args:
        pieces: Of the text, cut anywhere; spaces at their ends count.

    Raises:
        ValueError: A word of more than LONGEST_SENTENCE characters, when it is reached.
    """
    waiting = ""
    for piece in pieces:
        waiting += piece
        while (end := END.search(waiting)) is not None:
            yield from _of_a_breath(waiting[: end.end()])
            waiting = waiting[end.end() :]
    yield from _of_a_breath(waiting)


def _of_a_breath(sentence: str) -> Iterator[str]:
    """The sentence, or stretches of it that are short enough."""
    rest = " ".join(sentence.split())
    while len(rest) > LONGEST_SENTENCE:
        head = rest[: LONGEST_SENTENCE + 1]
        cut = max(head.rfind(mark) + 1 for mark in (", ", "; ", ": "))
        if cut < LONGEST_SENTENCE // 2:
            cut = head.rfind(" ")
        if cut <= 0:
            word = rest.split(" ", 1)[0]
            raise ValueError(
                f"a word of {len(word)} characters ({word[:20]}...) cannot be spoken: expected words of at "
                f"most {LONGEST_SENTENCE}"
            )
        yield rest[:cut].strip()
        rest = rest[cut:].strip()
    if rest:
        yield rest
