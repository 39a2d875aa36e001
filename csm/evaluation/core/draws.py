"""Draws by hash: the same clips whatever else the corpus holds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from csm.data.manifest import Corpus, Turn


def hash_rank(seed: int, name: str) -> bytes:
    """Returns the sort key of a name in a draw: SHA-256 of seed and name."""
    return hashlib.sha256(f"{seed}:{name}".encode("utf-8", "surrogatepass")).digest()


def draw_turns(turns: Sequence[Turn], count: int, seed: int) -> list[Turn]:
    """Draws at most `count` turns by the hash of their id; returns them in the order of their ids."""
    drawn = sorted(turns, key=lambda turn: hash_rank(seed, turn.id))[:count]
    return sorted(drawn, key=lambda turn: turn.id)


def held_out_speakers(corpus: Corpus) -> tuple[str, ...]:
    """Returns the speakers that trainings on this corpus leave out, as its corpus.json names them."""
    return tuple(corpus.info.get("held_out_speakers", ()))
