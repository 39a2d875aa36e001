"""Speakers by numbers of their conversation: who speaks is then known from the turns before alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from csm.data.step_plan import PlannedChunk


def with_local_speakers(
    chunk: PlannedChunk, numbers: Sequence[int], rng: np.random.Generator
) -> PlannedChunk:
    """Gives the speakers of a chunk and of its past local numbers, in a random order.

    A chunk of more speakers than numbers stays as it is.

    Args:
        chunk: Turns with the model's numbers of their speakers.
        numbers: Local numbers.
        rng: Draws their order.
    """
    turns = [*chunk.past, *(planned.turn for planned in chunk.turns)]
    speakers = list(dict.fromkeys(turn.speaker for turn in turns))
    drawn = rng.permutation(len(numbers))
    if len(speakers) > len(numbers):
        return chunk
    local = {speaker: numbers[int(place)] for speaker, place in zip(speakers, drawn, strict=False)}
    return PlannedChunk(
        [turn._replace(speaker=local[turn.speaker]) for turn in chunk.past],
        [
            planned._replace(turn=planned.turn._replace(speaker=local[planned.turn.speaker]))
            for planned in chunk.turns
        ],
    )
