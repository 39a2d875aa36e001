"""Asymmetric voice-text cross-attention at interpolated lengths.

A voice row reads the text of its own turn, stretched to the turn's number of frames, through a local window
around its own place: where in the text a frame is has hardly to be learned. Where it is known when each id is
said, the text is spread over the frames accordingly, by slots of 20 ms, else evenly. A voice row beyond the
window's reach reads the text's end. A text row reads the voice of its own turn globally. Both go through
`csm_kernels.interpolated_attention`, packed over turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from csm.network.layers import PackedSequences, RMSNorm, rotary_frequencies, rotate
from csm.sequences.frames import CrossSpan
from csm_kernels import interpolated_attention

# Of 20 ms: where in a frame a letter begins and ends makes another sound of it.
SLOTS = 4


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


class Spread(NamedTuple):
    """How much of each key every slot of every frame is made of. A frame of 80 ms has SLOTS slots in order.

    Attributes:
        slots, keys: int64 [n], places among the slots of all frames of all spans, and among their keys.
        shares: float32 [n, 1]; those of a slot add up to 1.
        frames: How many.
    """

    slots: Tensor
    keys: Tensor
    shares: Tensor
    frames: int

    def __call__(self, source: Float[Tensor, "M D"]) -> Float[Tensor, "F SD"]:
        """What is said in every frame, slot beside slot."""
        parts = source[self.keys] * self.shares.to(source.dtype)
        slots = source.new_zeros(self.frames * SLOTS, source.shape[1])
        return slots.index_add(0, self.slots, parts).view(self.frames, -1)


class Source(NamedTuple):
    """The rows that are read, before keys are made of them.

    Attributes:
        cu_seqlens: int32 [n + 1], span after span. longest: Most rows of one span.
        spread: Of text over frames; None where voice is read.
        speakers: int64, of every frame after the spread, text id of whose turn it is; -1 where nobody tells.
    """

    cu_seqlens: Tensor
    longest: int
    spread: Spread | None
    speakers: Tensor


class Reading(NamedTuple):
    """All spans of one direction, packed.

    Attributes:
        queries, keys: int64, rows that read and rows that are read, span after span.
        cu_seqlens_q, cu_seqlens_k: int32 [n + 1]; of what is attended to, after the spread over frames.
        lengths: int64 [n], the resampled length of every span's keys.
        query_offsets: int64 [n], place of the first query on the queries' clock.
        query_positions, key_positions: float32, the same clock for every row; keys after resampling.
        longest_key: Most keys of one span.
        late: Queries out of the window's reach, or None.
        source: The rows that are read; None once keys have been made of them.
        now: int64, for every query, what is attended to that lies at its own place.
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
    source: Source | None = None
    now: Tensor | None = None

    def to(self, device: torch.device) -> Reading:
        """The same reading on a device."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in self._asdict().items() if isinstance(v, Tensor)}
        late = None if self.late is None else LateQueries(*(t.to(device) for t in self.late))
        source = self.source
        if source is not None:
            spread = source.spread
            if spread is not None:
                slots, keys, shares = (t.to(device) for t in spread[:3])
                spread = Spread(slots, keys, shares, spread.frames)
            source = Source(source.cu_seqlens.to(device), source.longest, spread, source.speakers.to(device))
        return self._replace(**moved, late=late, source=source)


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
    # What is attended to: frames where it is known when each key is said, else the keys themselves.
    attended = [s if s.ends is None else s._replace(num_keys=s.length) for s in chosen]
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
        [(torch.arange(s.num_keys) + 0.5) * (s.length / max(s.num_keys, 1)) - 0.5 for s in attended]
    )

    def starts(counts: list[int]) -> Tensor:
        return F.pad(torch.tensor(counts).cumsum(0), (1, 0)).to(torch.int32)

    counts = torch.tensor([s.num_keys for s in chosen])
    source = Source(
        starts(counts.tolist()),
        int(counts.max()),
        _spread(chosen) if voice_reads else None,
        torch.tensor([s.speaker for s in chosen]).repeat_interleave(
            torch.tensor([s.num_keys for s in attended])
        ),
    )
    packed = Reading(
        queries=queries,
        keys=keys,
        cu_seqlens_q=starts([s.num_queries for s in chosen]),
        cu_seqlens_k=starts([s.num_keys for s in attended]),
        lengths=torch.tensor([s.length for s in chosen]),
        query_offsets=torch.full((len(chosen),), offset),
        query_positions=query_positions.float() * query_pace,
        key_positions=key_positions.float(),
        longest_key=max(s.num_keys for s in attended),
        late=_late_queries(attended, window) if voice_reads else None,
        source=source,
        now=torch.cat(_now(attended, offset)) if voice_reads else None,
    )
    return packed.to(device)


def _now(spans: Sequence[CrossSpan], offset: int) -> list[Tensor]:
    """For each span's queries the key at their place, counted over all spans' keys."""
    parts, first = [], 0
    for span in spans:
        places = torch.arange(span.num_queries) + offset
        parts.append(first + key_at(places, span.length, span.num_keys))
        first += span.num_keys
    return parts


def key_at(places: Int[Tensor, " Q"], length: int, keys: int) -> Int[Tensor, " Q"]:
    """Which of so many keys, stretched to `length`, lies at each place; the last one beyond the end."""
    return (2 * places.clamp(max=length - 1) + 1) * keys // (2 * length)


def _spread(spans: Sequence[CrossSpan]) -> Spread:
    """Shares of keys in slots; keys at an even pace fill a frame each, and are resampled by the attention."""
    slots, keys, shares = [], [], []
    first_frame = first_key = 0
    for span in spans:
        if span.ends is None:
            share = torch.eye(span.num_keys).repeat_interleave(SLOTS, 0)
        else:
            ends = span.ends.float().clamp(max=span.length) * SLOTS
            begins = F.pad(ends[:-1], (1, 0))
            slot = torch.arange(span.length * SLOTS).unsqueeze(1)
            share = (ends.minimum(slot + 1) - begins.maximum(slot)).clamp_min(0)
            share = share / share.sum(dim=1, keepdim=True).clamp_min(1e-6)
        at = share.nonzero()
        slots.append(at[:, 0] + first_frame * SLOTS)
        keys.append(at[:, 1] + first_key)
        shares.append(share[at[:, 0], at[:, 1]].unsqueeze(1))
        first_frame, first_key = first_frame + len(share) // SLOTS, first_key + span.num_keys
    return Spread(torch.cat(slots), torch.cat(keys), torch.cat(shares), first_frame)


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
        assert reading.source is not None
        layout = PackedSequences(reading.source.cu_seqlens, reading.source.longest)
        x = rows
        for norm, mix in zip(self.norms, self.mixes, strict=True):
            x = x + F.silu(mix(near_rows(norm(x), layout, self.NEIGHBOURS)))
        return x


def near_rows(rows: Float[Tensor, "M D"], layout: PackedSequences, neighbours: int) -> Float[Tensor, "M D2"]:
    """Every row beside its neighbours in the same sequence, zeros beyond the ends; they are an odd number."""
    reach = neighbours // 2
    padded = F.pad(layout.pad(rows), (0, 0, reach, reach))
    return layout.unpad(padded.unfold(1, neighbours, 1).transpose(2, 3).flatten(2))


class TextNow(nn.Module):
    """What is said in the very frame that a voice row predicts, added to the row before the first layer.

    Args:
        width: Of the rows.
        gate: tanh of it weighs what is added, as in CrossAttention.
    """

    def __init__(self, width: int, gate: float) -> None:
        super().__init__()
        self.norm, self.proj = RMSNorm(width), nn.Linear(width, width, bias=False)
        self.gate = nn.Parameter(torch.full((1,), gate))

    def forward(self, said: Float[Tensor, "Q D"]) -> Float[Tensor, "Q D"]:
        return torch.tanh(self.gate) * self.proj(self.norm(said))


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
