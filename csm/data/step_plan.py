"""What an optimizer step trains on, drawn once: targets are counted and rows are built from this plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from csm.sequences.turns import TurnFrames


class PlannedTurn(NamedTuple):
    """One turn of a chunk and how it is trained on.

    Attributes:
        turn: The turn in the time shift that was drawn.
        transcribed: True where voice comes first and text is the target, False where text comes first.
        length: Frames that the text is spread over where voice is the target.
        trained: False for a turn that is context only.
    """

    turn: TurnFrames
    transcribed: bool
    length: int
    trained: bool


class PlannedChunk(NamedTuple):
    """Consecutive turns of one conversation, packed as one sequence.

    Attributes:
        past: Turns before them, written to the memory.
        turns: Turns of the sequence.
    """

    past: Sequence[TurnFrames]
    turns: list[PlannedTurn]


class TargetCounts(NamedTuple):
    """Numbers of targets: what the sums of losses are divided by.

    Attributes:
        voice: Voice frames and end rows.
        frames: Frames that the depth decoder can be trained on.
        text: Text ids that are transcribed.
        turns: Turns whose voice is the target.
        pace: Text ids whose duration is known.
        letters: Letters of the turns that are transcribed.
    """

    voice: float
    frames: float
    text: float
    turns: float
    pace: float
    letters: float


class MicroBatchPlan(NamedTuple):
    """One micro-batch.

    Attributes:
        chunks: Its sequences, in order.
        counts: Its targets.
        depth_frames: int64 [F], sorted places among its `counts.frames` frames: those that train the depth
            decoder.
    """

    chunks: list[PlannedChunk]
    counts: TargetCounts
    depth_frames: Tensor

    def pieces(
        self, count: int, counted: Callable[[Iterable[PlannedTurn]], TargetCounts]
    ) -> list[MicroBatchPlan]:
        """Returns up to `count` plans of consecutive chunks, about equally many each.

        Args:
            count: How many, 1 or more; no more than there are chunks.
            counted: Counts the targets of turns.
        """
        count = min(count, len(self.chunks))
        bounds = [len(self.chunks) * piece // count for piece in range(count + 1)]
        plans, before = [], 0
        for first, last in pairwise(bounds):
            chunks = self.chunks[first:last]
            counts = counted(turn for chunk in chunks for turn in chunk.turns)
            places = self.depth_frames - before
            inside = (places >= 0) & (places < counts.frames)
            plans.append(MicroBatchPlan(chunks, counts, places[inside]))
            before += int(counts.frames)
        return plans


@dataclass(frozen=True)
class StepPlan:
    """All micro-batches of one optimizer step, whichever rank runs them."""

    micro_batches: list[MicroBatchPlan]

    @property
    def counts(self) -> TargetCounts:
        """Targets of the step divided by its micro-batches."""
        parts = [torch.tensor(plan.counts, dtype=torch.float64) for plan in self.micro_batches]
        return TargetCounts(*(torch.stack(parts).sum(dim=0) / len(parts)).tolist())
