"""Asymmetric voice-text cross-attention at interpolated lengths.

A voice row reads the text of its own turn, stretched to the turn's number of frames, through a local window
around its own place: where in the text a frame is has hardly to be learned. A voice row beyond the window's
reach reads the text's end. A text row reads the voice of its own turn globally. Both go through
`csm_kernels.interpolated_attention`, packed over turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from csm.data.frames import CrossSpan
from csm.model.layers import PackedSequences, RMSNorm, rotary_frequencies, rotate
from csm_kernels import interpolated_attention


class LateQueries(NamedTuple):
    """Queries past the last place whose window holds something; each reads the keys' last resampled one.

    Attributes:
        queries: int64 [n], place among a Reading's queries.
        left, right: int64 [n], keys on both sides of the last resampled one, places among a Reading's keys.
        weight: float32 [n, 1, 1], share of the right one.
    """

    queries: Tensor
    left: Tensor
    right: Tensor
    weight: Tensor


class Reading(NamedTuple):
    """All spans of one direction, packed.

    Attributes:
        queries, keys: int64, rows that read and rows that are read, span after span.
        cu_seqlens_q, cu_seqlens_k: int32 [n + 1].
        lengths: int64 [n], the resampled length of every span's keys.
        query_offsets: int64 [n], place of the first query on the queries' clock.
        query_positions, key_positions: float32, the same clock for every row; keys after resampling.
        longest_key: Most keys of one span.
        late: Queries out of the window's reach, or None.
    """

    queries: Tensor
    keys: Tensor
    cu_seqlens_q: Tensor
    cu_seqlens_k: Tensor
    lengths: Tensor
    query_offsets: Tensor
    query_positions: Tensor
    key_positions: Tensor
    longest_key: int
    late: LateQueries | None = None

    def to(self, device: torch.device) -> Reading:
        """The same reading on a device."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in self._asdict().items() if isinstance(v, Tensor)}
        late = None if self.late is None else LateQueries(*(t.to(device) for t in self.late))
        return self._replace(**moved, late=late)


def pack_reading(
    spans: Sequence[CrossSpan], *, voice_reads: bool, query_pace: float, window: int, device: torch.device
) -> Reading | None:
    """The spans of one direction, or None where there is none.

    Args:
        spans: Of a RowBatch.
        voice_reads: Which direction.
        query_pace: Steps of the clock from one query to the next (1 for frames; frames per text id for text).
        window: Frames to each side that a voice row reads.
        device: Where the rows are.
    """
    chosen = [s for s in spans if s.voice_reads == voice_reads]
    if not chosen:
        return None
    # A voice row predicts the frame after its own: its clock is one ahead.
    offset = 1 if voice_reads else 0
    queries = torch.cat([torch.arange(s.first_query, s.first_query + s.num_queries) for s in chosen])
    keys = torch.cat([torch.arange(s.first_key, s.first_key + s.num_keys) for s in chosen])
    query_positions = torch.cat(
        [(torch.arange(s.num_queries) + offset).clamp(max=s.length if voice_reads else None) for s in chosen]
        if voice_reads
        else [torch.arange(s.num_queries) for s in chosen]
    )
    key_positions = torch.cat(
        [(torch.arange(s.num_keys) + 0.5) * (s.length / max(s.num_keys, 1)) - 0.5 for s in chosen]
    )

    def starts(counts: list[int]) -> Tensor:
        return F.pad(torch.tensor(counts).cumsum(0), (1, 0)).to(torch.int32)

    packed = Reading(
        queries=queries,
        keys=keys,
        cu_seqlens_q=starts([s.num_queries for s in chosen]),
        cu_seqlens_k=starts([s.num_keys for s in chosen]),
        lengths=torch.tensor([s.length for s in chosen]),
        query_offsets=torch.full((len(chosen),), offset),
        query_positions=query_positions.float() * query_pace,
        key_positions=key_positions.float(),
        longest_key=max(s.num_keys for s in chosen),
        late=_late_queries(chosen, window) if voice_reads else None,
    )
    return packed.to(device)


def _late_queries(spans: Sequence[CrossSpan], window: int) -> LateQueries | None:
    """Voice rows that are more than the window beyond the end of their text."""
    queries: list[int] = []
    left: list[int] = []
    right: list[int] = []
    weight: list[float] = []
    first_query, first_key = 0, 0
    for span in spans:
        # Query i has place i + 1; the last resampled key has place length - 1.
        late = range(min(span.num_queries, span.length - 1 + window), span.num_queries)
        if late:
            # F.interpolate's rule at the last place, in whole numbers as the kernel does it.
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
    return LateQueries(torch.tensor(queries), torch.tensor(left), torch.tensor(right), shares)


class SourceEncoder(nn.Module):
    """Gives every row that will be read a view of its neighbours on both sides.

    The backbone is causal, so a letter there does not know the next one; but what is read is known whole. Two
    residual layers over five neighbours reach four letters to each side.
    """

    NEIGHBOURS = 5

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(RMSNorm(width) for _ in range(2))
        self.mixes = nn.ModuleList(nn.Linear(self.NEIGHBOURS * width, width) for _ in range(2))

    def forward(self, rows: Float[Tensor, "M D"], reading: Reading) -> Float[Tensor, "M D"]:
        layout = PackedSequences(reading.cu_seqlens_k, reading.longest_key)
        reach = self.NEIGHBOURS // 2
        x = rows
        for norm, mix in zip(self.norms, self.mixes, strict=True):
            padded = F.pad(layout.pad(norm(x)), (0, 0, reach, reach))
            near = padded.unfold(1, self.NEIGHBOURS, 1).transpose(2, 3).flatten(2)
            x = x + F.silu(mix(layout.unpad(near)))
        return x


class CrossAttention(nn.Module):
    """One direction of reading in one layer, added to the queries' rows through a gate.

    Args:
        width: Of the rows.
        n_heads: Heads.
        window: Frames to each side, None for global.
        base: RoPE base.
        gate: tanh of this weighs what is read; 0 at import of a model that lacks it, so that nothing changes.
    """

    frequencies: Tensor

    def __init__(self, width: int, n_heads: int, window: int | None, base: float, gate: float) -> None:
        super().__init__()
        self.n_heads, self.window = n_heads, window
        self.norm, self.source_norm = RMSNorm(width), RMSNorm(width)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.gate = nn.Parameter(torch.full((1,), gate))
        self.register_buffer("frequencies", rotary_frequencies(width // n_heads, base), persistent=False)

    def keys_values(self, source: Float[Tensor, "M D"], reading: Reading) -> tuple[Tensor, Tensor]:
        """Keys with their position (before the resampling) and values, [M, N, H]."""
        normed = self.source_norm(source)
        shape = (len(source), self.n_heads, source.shape[1] // self.n_heads)
        keys = rotate(self.k_proj(normed).view(shape), reading.key_positions, self.frequencies)
        return keys, self.v_proj(normed).view(shape)

    def read(
        self, x: Float[Tensor, "Q D"], keys: Tensor, values: Tensor, reading: Reading
    ) -> Float[Tensor, "Q D"]:
        """What the query rows take from the keys."""
        q = rotate(
            self.q_proj(self.norm(x)).view(len(x), self.n_heads, x.shape[1] // self.n_heads),
            reading.query_positions,
            self.frequencies,
        )
        out = interpolated_attention(
            q,
            keys.to(q.dtype),
            values.to(q.dtype),
            cu_seqlens_q=reading.cu_seqlens_q,
            cu_seqlens_k=reading.cu_seqlens_k,
            lengths=reading.lengths,
            query_offsets=reading.query_offsets,
            window=self.window,
        )
        if reading.late is not None:
            # They saw nothing, which gave 0.
            queries, left, right, weight = reading.late
            end = torch.lerp(values[left].float(), values[right].float(), weight)
            out = out.index_add(0, queries, end.to(out.dtype))
        return torch.tanh(self.gate) * self.o_proj(out.to(x.dtype).flatten(1))
