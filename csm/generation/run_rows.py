"""The next rows of several turns, of one conversation each, in one call of their model's backbone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from csm.generation.spoken_turn import SpokenTurn
from csm.network.layers import KeyValueCache
from csm.network.memory import MemoryState
from csm.network.voice_reading import VoiceReading


class SeparateCaches:
    """Attention of one new row of each of several conversations to all rows so far of its own.

    Args:
        caches: Of the conversations, in the order of the rows.
    """

    def __init__(self, caches: Sequence[KeyValueCache]) -> None:
        self.caches = caches

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = zip(self.caches, q.split(1), k.split(1), v.split(1), strict=True)
        return torch.cat([cache(layer, *row) for cache, *row in rows])

    def pad(self, x: Tensor) -> Tensor:
        """[B, ...] -> [B, 1, ...]."""
        return x.unsqueeze(1)

    def unpad(self, x: Tensor) -> Tensor:
        """[B, 1, ...] -> [B, ...]."""
        return x[:, 0]


def run_together(turns: Sequence[SpokenTurn]) -> Float[Tensor, "B D"]:
    """Runs the next row of each of these turns, at least one, in one call of their model's backbone.

    Returns:
        What the next frame of each turn is predicted from; a guided turn has two rows
        (`SpokenTurn.next_rows`), of which this is made.
    """
    coming = [turn.next_rows() for turn in turns]
    # Rows that read their text come first: place i of a reading is that of row i.
    order = [(turn, kind) for kind in range(2) for turn, rows in enumerate(coming) if len(rows) > kind]
    parts = [coming[turn][kind] for turn, kind in order]
    rows = torch.cat([part.row for part in parts])
    readings = [part.reading for part in parts if part.reading is not None]
    hidden: Tensor = turns[0].model.backbone(
        rows,
        torch.tensor([part.cache.length for part in parts], device=rows.device),
        SeparateCaches([part.cache for part in parts]),
        voice=VoiceReading.concat(readings) if readings else None,
        memory=join_memories([part.memory for part in parts if part.memory is not None]),
    )
    for part in parts:
        part.cache.advance(1)
    places = {one: place for place, one in enumerate(order)}
    return torch.stack(
        [
            turn.guided(*(hidden[places[number, kind]] for kind in range(len(coming[number]))))
            for number, turn in enumerate(turns)
        ]
    )


def join_memories(states: Sequence[MemoryState]) -> MemoryState | None:
    """Returns the states of all these conversations in one; None of no states."""
    return MemoryState(*map(torch.cat, zip(*states, strict=True))) if states else None
