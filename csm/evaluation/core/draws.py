"""Draws by hash: the same clips whatever else the corpus holds."""

from __future__ import annotations

from collections.abc import Sequence

from csm.data.manifest import Corpus, Turn
from csm.system.files import hash_key


def draw_turns(turns: Sequence[Turn], count: int, seed: int) -> list[Turn]:
    """Draws at most `count` turns by the hash of their id; returns them in the order of their ids."""
    drawn = sorted(turns, key=lambda turn: hash_key(turn.id, seed))[:count]
    return sorted(drawn, key=lambda turn: turn.id)


def held_out_speakers(corpus: Corpus) -> tuple[str, ...]:
    """Returns the speakers that trainings on this corpus leave out, as its corpus.json names them."""
    return tuple(corpus.info.get("held_out_speakers", ()))
