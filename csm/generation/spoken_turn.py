"""A turn while it is spoken: it tells which row comes next, and whoever drives it runs that row."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csm.network.backbone import ReadingKeys
from csm.network.cross_attention import Reading, key_at
from csm.network.csm_model import CSMModel
from csm.network.layers import KeyValueCache
from csm.network.memory import MemoryState
from csm.sequences.frames import CrossSpan, RowBatch, TurnFrames


class PlannedTurn(NamedTuple):
    """A turn that was found fit to be spoken.

    Attributes:
        text, speaker: What is said, by whom.
        ids: int64 [L], the text's rows.
        frames: Expected length; None asks the model.
    """

    text: str
    speaker: int
    ids: Tensor
    frames: int | None


class NextRow(NamedTuple):
    """A row to be run, and all that the backbone needs for it.

    Attributes:
        row: [1, D], embedded.
        cache: Of its conversation: the row comes after those that it holds.
        voice_keys: What the row reads of its turn's text; None in a model without cross-attention.
        memory: Of its conversation; None in a model without memory layers.
    """

    row: Float[Tensor, "1 D"]
    cache: KeyValueCache
    voice_keys: ReadingKeys | None
    memory: MemoryState | None


@dataclass(kw_only=True, eq=False)
class SpokenTurn:
    """A turn between its text and its end row.

    The rows of its frames and the end row go through the backbone one by one. How many went is told by the
    cache alone, so that a driver may be interrupted anywhere and go on from there.

    Attributes:
        plan: What is said.
        model, cache, memory: Of the session.
        keys: What voice rows read of the text; None in a model without cross-attention.
        hidden: [D], what came out of the newest row: the next frame is drawn from it.
        expected: Frames over which the text is spread.
        ends: float32 [L], where each text id ends among them; None: at an even pace.
        shortest, limit: Frames before which the turn does not end, and at which it is cut off.
        said: int64 [K] each, the frames so far.
    """

    plan: PlannedTurn
    model: CSMModel
    cache: KeyValueCache
    memory: MemoryState | None
    keys: ReadingKeys | None
    hidden: Float[Tensor, " D"]
    expected: int
    shortest: float
    limit: int
    ends: Tensor | None = None
    said: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._text_end = self.cache.length

    @property
    def rows_left(self) -> int:
        """Rows still to be run if the turn ends with what was said: 2, 1 (the end), or 0 when it is whole."""
        return len(self.said) + 1 - (self.cache.length - self._text_end)

    def next_row(self) -> NextRow:
        """The row of the newest frame; once that was run, the end row."""
        assert self.rows_left, "the turn has had its end row"
        place = self.cache.length - self._text_end + 1
        config, device = self.model.config, self.hidden.device
        if place <= len(self.said):
            frame = self.said[place - 1]
        else:
            frame = torch.full((config.num_codebooks,), config.end_code, device=device)
        row = self.model.embed_rows(torch.full((1,), -1, device=device), frame.unsqueeze(0))
        return NextRow(row, self.cache, self._voice_query(place), self.memory)

    def codes(self) -> Int[Tensor, "K T"]:
        """What was said, on the CPU; T may be 0."""
        empty = torch.zeros(self.model.config.num_codebooks, 0, dtype=torch.int64)
        return torch.stack(self.said, dim=1).cpu() if self.said else empty

    def _voice_query(self, place: int) -> ReadingKeys | None:
        if self.keys is None:
            return None
        # Past the expected end the voice goes on reading the last letters.
        last = self.expected - 1 + self.model.config.cross_window
        step = one_query(self.keys, min(place, last), 1.0)
        position = torch.full_like(step.reading.query_positions, float(min(place, self.expected)))
        return step._replace(reading=step.reading._replace(query_positions=position))


def text_keys(
    model: CSMModel, plan: PlannedTurn, length: int, ends: Float[Tensor, " L"] | None = None
) -> ReadingKeys | None:
    """Keys of a text for voice rows to come, spread over `length` frames by its ids' ends, or evenly."""
    ids = plan.ids
    builder = model.new_rows()
    empty = torch.zeros(model.config.num_codebooks, 0, dtype=torch.int64)
    builder.add_spoken(TurnFrames("next", ".", 0, empty), finished=False, train=False)
    speaker = model.codec.speaker_id(plan.speaker)
    spans = [CrossSpan(0, 1, 0, len(ids), length, voice_reads=True, ends=ends, speaker=speaker)]
    batch: RowBatch = replace(builder.build(), spans=spans)
    return model.reading_keys(model.text_embedding(ids), batch, voice_reads=True)


def one_query(keys: ReadingKeys, place: int, pace: float) -> ReadingKeys:
    """The same keys, read by one row at `place` on the queries' clock."""
    old = keys.reading
    reading = Reading(
        queries=old.queries.new_zeros(1),
        keys=old.keys,
        cu_seqlens_q=old.cu_seqlens_q.new_tensor([0, 1]),
        cu_seqlens_k=old.cu_seqlens_k,
        lengths=old.lengths,
        query_offsets=old.query_offsets.new_tensor([place]),
        query_positions=old.query_positions.new_tensor([place * pace]),
        key_positions=old.key_positions,
        longest_key=old.longest_key,
    )
    if keys.said is not None:
        at = key_at(torch.tensor([place]), int(old.lengths[0]), len(keys.said))
        reading = reading._replace(now=at.to(old.queries.device))
    return keys._replace(reading=reading)
