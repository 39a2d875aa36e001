"""Text rows read the voice of their own turn, globally."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from csm.network.cross_attention import (
    CrossAttention,
    FlatReading,
    Reading,
    query_rows,
    resampled_positions,
    starts,
)
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
        layers: Iterable[CrossAttention],
        frames_per_id: float,
    ) -> TextReading:
        """Returns the reading of these spans, at least one.

        Args:
            spans: Spans of a RowBatch.
            source: Encoded voice rows that are read, span after span.
            layers: Cross-attention layers of text rows.
            frames_per_id: Mean frames per text id.
        """
        device = source.device
        positions = torch.cat([resampled_positions(s.num_keys, s.num_keys) for s in spans]).to(device)
        pairs = [layer.keys_values(source, positions) for layer in layers]
        places = torch.cat([torch.arange(s.num_queries) for s in spans])
        return cls(
            queries=query_rows(spans).to(device),
            cu_seqlens_q=starts([s.num_queries for s in spans]).to(device),
            cu_seqlens_k=starts([s.num_keys for s in spans]).to(device),
            lengths=torch.tensor([s.num_keys for s in spans]).to(device),
            query_offsets=torch.zeros(len(spans), dtype=torch.int64).to(device),
            query_positions=(places.float() * frames_per_id).to(device),
            keys=[keys for keys, _ in pairs],
            values=[values for _, values in pairs],
            window=None,
            flat=FlatReading.of(spans, [s.num_keys for s in spans], 0, None),
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
            flat=None,
        )
