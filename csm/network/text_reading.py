"""Text rows read the voice of their own turn, globally."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from csm.network.cross_attention import (
    CrossAttention,
    FlatReading,
    Reading,
    ReadingLayout,
    key_rows,
    keys_values,
    query_rows,
    resampled_positions,
    starts,
)
from csm.sequences.one_copy import moved
from csm.sequences.packed_batch import TextSpan


@dataclass(frozen=True, kw_only=True, eq=False)
class TextReading(Reading):
    """Text rows and the voice of their turns; keys are the frames of the voice.

    Attributes:
        frames_per_id: Frames from one text row to the next on the clock of the rotary positions.
    """

    frames_per_id: float

    @classmethod
    def pack(
        cls,
        spans: Sequence[TextSpan],
        source: Float[Tensor, "M D"],
        layers: Sequence[CrossAttention],
        frames_per_id: float,
    ) -> TextReading:
        """Returns the reading of these spans, at least one.

        Args:
            spans: Spans of a RowBatch.
            source: Encoded voice rows that are read, span after span.
            layers: Cross-attention layers of text rows.
            frames_per_id: Mean frames per text id.
        """
        layout = moved(text_layout(spans, frames_per_id), source.device)
        return cls.of(layout, source, layers, frames_per_id)

    @classmethod
    def of(
        cls,
        layout: ReadingLayout,
        source: Float[Tensor, "M D"],
        layers: Sequence[CrossAttention],
        frames_per_id: float,
    ) -> TextReading:
        """Returns the reading with this layout, on the device of `source`; see `pack`."""
        keys, values = keys_values(layers, source, layout.key_positions)
        return cls(
            queries=layout.queries,
            cu_seqlens_q=layout.cu_seqlens_q,
            cu_seqlens_k=layout.cu_seqlens_k,
            lengths=layout.lengths,
            query_offsets=layout.query_offsets,
            query_positions=layout.query_positions,
            rotation=layers[0].rotation(layout.query_positions) if layers else None,
            keys=keys,
            values=values,
            window=None,
            flat=layout.flat,
            frames_per_id=frames_per_id,
        )

    def step(self, place: int) -> TextReading:
        """Returns the reading of one turn by one text row, the one at `place` after the end row."""
        return replace(
            self,
            queries=self.queries.new_zeros(1),
            cu_seqlens_q=self.cu_seqlens_q.new_tensor([0, 1]),
            query_offsets=self.query_offsets.new_tensor([place]),
            query_positions=self.query_positions.new_tensor([place * self.frames_per_id]),
            rotation=None,
            flat=None,
        )


def text_layout(spans: Sequence[TextSpan], frames_per_id: float) -> ReadingLayout:
    """Returns which text rows of these spans, at least one, read which voice rows, on the CPU."""
    read, sequences = key_rows(spans)
    places = torch.cat([torch.arange(s.num_queries) for s in spans])
    keys = [s.num_keys for s in spans]
    return ReadingLayout(
        read=read,
        sequences=sequences,
        key_positions=torch.cat([resampled_positions(count, count) for count in keys]),
        queries=query_rows(spans),
        cu_seqlens_q=starts([s.num_queries for s in spans]),
        cu_seqlens_k=starts(keys),
        lengths=torch.tensor(keys),
        query_offsets=torch.zeros(len(spans), dtype=torch.int64),
        query_positions=places.float() * frames_per_id,
        flat=FlatReading.of(spans, keys, 0, None),
    )
