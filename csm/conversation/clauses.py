"""Splits a reply that streams in: its first clause is spoken before its first sentence is complete."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from csm.generation.sentences import first_end, sentences

FIRST_CLAUSE = re.compile(r"^\s*\S.{10,}?[,;:]\s+", re.DOTALL)


def clauses(pieces: Iterable[str]) -> Iterator[str]:
    """Yields the first clause of at least twelve characters, then sentences, each as soon as it is complete.

    Args:
        pieces: Pieces of the text, cut anywhere; spaces at their ends count.

    Raises:
        ValueError: A word is too long (`sentences`).
    """
    arriving = iter(pieces)
    waiting = ""
    for piece in arriving:
        waiting += piece
        clause, sentence = FIRST_CLAUSE.search(waiting), first_end(waiting)
        if clause is not None and (sentence is None or clause.end() < sentence):
            yield from sentences([waiting[: clause.end()]])
            waiting = waiting[clause.end() :]
            break
        if sentence is not None:
            break
    yield from sentences(_followed(waiting, arriving))


def _followed(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest
