"""Voice rows read the text of their own turn, locally.

The text is stretched to the turn's number of frames, by the ends of its ids where they are known and evenly
elsewhere, and each voice row sees a window around its own frame: the alignment of frame and text need hardly
be learned. A query whose window lies past the last resampled key takes the value of that key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
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
from csm.network.text_frame_alignment import TextFrameAlignment
from csm.sequences.one_copy import moved
from csm.sequences.packed_batch import VoiceSpan

# A voice row predicts the frame after its own: it reads one place ahead.
AHEAD = 1


class BeyondText(NamedTuple):
    """Queries past the last place whose window holds a key; each reads the last resampled value instead.

    Attributes:
        queries: int64 [n], index among the reading's queries.
        left, right: int64 [n], keys on both sides of the last resampled one, among the reading's keys.
        weight: float32 [n, 1, 1], share of the right one.
    """

    queries: Tensor
    left: Tensor
    right: Tensor
    weight: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class VoiceLayout(ReadingLayout):
    """Which voice rows read which text, and how it is stretched over their frames.

    Attributes:
        alignment: What each frame of text is made of.
        speakers: int64 [M2], text id of each key's speaker, 0 where it is unknown.
        spoken: bool [M2, 1], whether it is known.
        key_of_query, beyond: As of VoiceReading.
    """

    alignment: TextFrameAlignment
    speakers: Tensor
    spoken: Tensor
    key_of_query: Tensor
    beyond: BeyondText | None

    @classmethod
    def of(cls, spans: Sequence[VoiceSpan], window: int) -> VoiceLayout:
        """Returns the layout of these spans, at least one, on the CPU.

        Args:
            spans: Spans of a RowBatch.
            window: Frames to each side that a voice row sees.
        """
        read, sequences = key_rows(spans)
        alignment = TextFrameAlignment.pack(spans)
        # What is attended to: frames where the ends of the ids are known, else the ids themselves.
        spans = [s if s.ends is None else s._replace(num_keys=s.length) for s in spans]
        places = [(torch.arange(s.num_queries) + AHEAD).clamp(max=s.length) for s in spans]
        ids = torch.tensor([s.speaker for s in spans])
        ids = ids.repeat_interleave(torch.tensor([s.num_keys for s in spans]))
        return cls(
            read=read,
            sequences=sequences,
            alignment=alignment,
            speakers=ids.clamp_min(0),
            spoken=(ids >= 0).unsqueeze(1),
            key_positions=torch.cat([resampled_positions(s.num_keys, s.length) for s in spans]),
            queries=query_rows(spans),
            cu_seqlens_q=starts([s.num_queries for s in spans]),
            cu_seqlens_k=starts([s.num_keys for s in spans]),
            lengths=torch.tensor([s.length for s in spans]),
            query_offsets=torch.full((len(spans),), AHEAD),
            query_positions=torch.cat(places).float(),
            key_of_query=_keys_of_queries(spans),
            beyond=_beyond_text(spans, window),
            flat=FlatReading.of(spans, [s.length for s in spans], AHEAD, window),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class VoiceReading(Reading):
    """Voice rows and the text of their turns; keys are frames of text, or text ids where ends are unknown.

    Attributes:
        frame_text: [M, D], text of each key before the cross-attention layers.
        key_of_query: int64 [Q], the key at each query's own place.
        beyond: Queries out of the window's reach, or None.
    """

    window: int
    frame_text: Tensor
    key_of_query: Tensor
    beyond: BeyondText | None = None

    @classmethod
    def pack(
        cls,
        spans: Sequence[VoiceSpan],
        frame_text: Float[Tensor, "M D"],
        layers: Sequence[CrossAttention],
        window: int,
    ) -> VoiceReading:
        """Returns the reading of these spans, at least one.

        Args:
            spans: Spans of a RowBatch.
            frame_text: What the TextFrameAlignment of the spans gives.
            layers: Cross-attention layers of voice rows.
            window: Frames to each side that a voice row sees.
        """
        layout = moved(VoiceLayout.of(spans, window), frame_text.device)
        return cls.of(layout, frame_text, layers, window)

    @classmethod
    def of(
        cls,
        layout: VoiceLayout,
        frame_text: Float[Tensor, "M D"],
        layers: Sequence[CrossAttention],
        window: int,
    ) -> VoiceReading:
        """Returns the reading with this layout, on the device of `frame_text`; see `pack`."""
        keys, values = keys_values(layers, frame_text, layout.key_positions)
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
            window=window,
            flat=layout.flat,
            frame_text=frame_text,
            key_of_query=layout.key_of_query,
            beyond=layout.beyond,
        )

    def step(self, place: int) -> VoiceReading:
        """Returns the reading of one turn by one row: the one that predicts frame `place`, counted from 0."""
        length = int(self.lengths[0])
        # Beyond the window's reach of the text, a row keeps reading the last ids.
        seen = min(place, length - 1 + self.window)
        key = key_at(torch.tensor([seen]), length, len(self.frame_text))
        return replace(
            self,
            queries=self.queries.new_zeros(1),
            cu_seqlens_q=self.cu_seqlens_q.new_tensor([0, 1]),
            query_offsets=self.query_offsets.new_tensor([seen]),
            query_positions=self.query_positions.new_tensor([float(min(place, length))]),
            rotation=None,
            key_of_query=key.to(self.queries.device),
            flat=None,
            beyond=None,
        )

    @classmethod
    def concat(cls, parts: Sequence[VoiceReading]) -> VoiceReading:
        """Returns the reading in which row i reads what parts[i] has its one row read; at least one part."""
        if len(parts) == 1:
            return parts[0]
        counts = torch.cat([part.cu_seqlens_k[-1:] for part in parts])
        firsts = F.pad(counts.cumsum(0), (1, 0))
        return cls(
            queries=torch.arange(len(parts), device=counts.device),
            cu_seqlens_q=torch.arange(len(parts) + 1, dtype=torch.int32, device=counts.device),
            cu_seqlens_k=firsts.to(torch.int32),
            lengths=torch.cat([part.lengths for part in parts]),
            query_offsets=torch.cat([part.query_offsets for part in parts]),
            query_positions=torch.cat([part.query_positions for part in parts]),
            rotation=None,
            keys=[torch.cat(layer) for layer in zip(*(part.keys for part in parts), strict=True)],
            values=[torch.cat(layer) for layer in zip(*(part.values for part in parts), strict=True)],
            window=parts[0].window,
            frame_text=torch.cat([part.frame_text for part in parts]),
            key_of_query=torch.cat([part.key_of_query for part in parts]) + firsts[:-1],
        )

    def attend(self, q: Float[Tensor, "Q N H"], layer: int) -> Float[Tensor, "Q N H"]:
        """Returns what the queries take from the values; those beyond the text take its last value."""
        out = super().attend(q, layer)
        if self.beyond is None:
            return out
        values = self.values[layer]
        queries, left, right, weight = self.beyond
        end = torch.lerp(values[left].float(), values[right].float(), weight)
        # The attention gives these queries 0, as their windows are empty.
        return out.index_add(0, queries, end.to(out.dtype))


def key_at(
    places: Int[Tensor, " Q"], length: int | Int[Tensor, " Q"], keys: int | Int[Tensor, " Q"]
) -> Int[Tensor, " Q"]:
    """Returns which of `keys` keys, stretched to `length`, lies at each place; beyond the end the last."""
    return (2 * places.clamp(max=length - 1) + 1) * keys // (2 * length)


def _keys_of_queries(spans: Sequence[VoiceSpan]) -> Int[Tensor, " Q"]:
    """Returns for each query the key at its own place, counted over all spans' keys."""
    parts, first = [], 0
    for span in spans:
        places = torch.arange(span.num_queries) + AHEAD
        parts.append(first + key_at(places, span.length, span.num_keys))
        first += span.num_keys
    return torch.cat(parts)


def _beyond_text(spans: Sequence[VoiceSpan], window: int) -> BeyondText | None:
    """Returns the voice rows that are more than the window beyond the end of their text."""
    queries: list[int] = []
    left: list[int] = []
    right: list[int] = []
    weight: list[float] = []
    first_query, first_key = 0, 0
    for span in spans:
        # Query i has place i + 1; the last resampled key has place length - 1.
        late = range(min(span.num_queries, span.length - 1 + window), span.num_queries)
        if late:
            # F.interpolate's rule at the last place, in whole numbers as the kernel computes it.
            scale = 2 * span.length
            place = min(max((scale - 1) * span.num_keys - span.length, 0), (span.num_keys - 1) * scale)
            queries += [first_query + i for i in late]
            left += [first_key + place // scale] * len(late)
            right += [first_key + min(place // scale + 1, span.num_keys - 1)] * len(late)
            weight += [place % scale / scale] * len(late)
        first_query += span.num_queries
        first_key += span.num_keys
    if not queries:
        return None
    shares = torch.tensor(weight).view(-1, 1, 1)
    return BeyondText(torch.tensor(queries), torch.tensor(left), torch.tensor(right), shares)
