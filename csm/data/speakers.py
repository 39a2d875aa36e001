"""The number of each speaker in a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def speaker_numbers(names: Sequence[str], known: Mapping[str, int] | None = None) -> dict[str, int]:
    """Returns numbers of speakers: known ones keep theirs, the others take the lowest free ones.

    Args:
        names: Names in the order of a corpus.
        known: Numbers by name in the model that a training starts from.
    """
    known = known or {}
    taken = set(known.values())
    free = (number for number in range(len(names) + len(known)) if number not in taken)
    return {name: known[name] if name in known else next(free) for name in names}
