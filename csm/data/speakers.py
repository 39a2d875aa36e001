"""Which number each speaker has in a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def speaker_numbers(names: Sequence[str], known: Mapping[str, int] | None = None) -> dict[str, int]:
    """Numbers of speakers: those that a model knows keep theirs, the others take the lowest free ones.

    Args:
        names: Of a corpus, in its order.
        known: Numbers by name, of the model that a training goes on from.
    """
    known = known or {}
    free = (number for number in range(len(names) + len(known)) if number not in set(known.values()))
    return {name: known[name] if name in known else next(free) for name in names}
