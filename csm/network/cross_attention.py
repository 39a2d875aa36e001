"""Cross-attention between voice and text of a turn at interpolated lengths, through a gate.

Two kinds of rows read: voice rows read the text of their turn locally (`csm.network.voice_reading`), text
rows read the voice of their turn globally (`csm.network.text_reading`). Both pack their turns end to end and
go through `csm_kernels.interpolated_attention`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from csm.network.initialise import draw
from csm.network.layers import PackedSequences, RMSNorm, near_rows
from csm.network.rotary import Rotation, rotary_frequencies, rotate, rotation
from csm.network.varlen import Band, band_of, kernel_for
from csm.sequences.packed_batch import TextSpan, VoiceSpan
from csm_kernels import interpolated_attention


class FlatReading(NamedTuple):
    """Arguments of flash attention for a reading that needs no resampling ("flat").

    Where the keys of every turn already have the length that they would be resampled to, interpolated
    attention is plain attention inside each turn, and flash attention applies.

    Attributes:
        longest_q: Largest number of queries of a turn.
        longest_k: Largest number of keys of a turn.
        band: Numbers of keys to the left and right of a query that it attends to, with queries and keys
            aligned at their ends (`varlen.Band`, made by `varlen.band_of`).
    """

    longest_q: int
    longest_k: int
    band: Band

    @classmethod
    def of(
        cls,
        spans: Sequence[VoiceSpan] | Sequence[TextSpan],
        lengths: Sequence[int],
        first_place: int,
        window: int | None,
    ) -> FlatReading | None:
        """Returns the arguments of spans whose keys are to have `lengths`; None if any needs resampling."""
        queries, keys = [s.num_queries for s in spans], [s.num_keys for s in spans]
        band = band_of(queries, keys, first_place, window)
        if band is None or keys != list(lengths):
            return None
        return cls(max(queries), max(keys), band)


@runtime_checkable
class RowsThatRead(Protocol):
    """What a cross-attention layer asks of a reading; the attributes are those of Reading."""

    @property
    def queries(self) -> Tensor: ...

    @property
    def query_positions(self) -> Tensor: ...

    @property
    def rotation(self) -> Rotation | None: ...

    def attend(self, q: Float[Tensor, "Q N H"], layer: int) -> Float[Tensor, "Q N H"]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class ReadingLayout:
    """Which rows read which, of n turns: what the host makes with a batch.

    Attributes:
        read: int64 [M], rows that are read.
        sequences: Where the read rows of each turn lie.
        key_positions: float32 [M2], rotary position of each key.
        queries, cu_seqlens_q, cu_seqlens_k, lengths, query_offsets, query_positions, flat: As of Reading.
    """

    read: Tensor
    sequences: PackedSequences
    key_positions: Tensor
    queries: Tensor
    cu_seqlens_q: Tensor
    cu_seqlens_k: Tensor
    lengths: Tensor
    query_offsets: Tensor
    query_positions: Tensor
    flat: FlatReading | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Reading:
    """Rows that read, and keys and values of what they read, packed over n turns.

    Attributes:
        queries: int64 [Q], rows that read.
        cu_seqlens_q: int32 [n + 1], starts of each turn's queries and the total.
        cu_seqlens_k: int32 [n + 1], starts of each turn's keys and the total.
        lengths: int64 [n], length that each turn's keys are resampled to.
        query_offsets: int64 [n], place of each turn's first query among its resampled keys.
        query_positions: float32 [Q], rotary position of each query.
        rotation: Rotation to these positions; None in a model without cross-attention layers.
        keys, values: [M, N, H] for each cross-attention layer.
        window: Resampled keys to each side that a query sees; None: all.
        flat: Arguments of flash attention where no turn's keys need resampling, else None.
    """

    queries: Tensor
    cu_seqlens_q: Tensor
    cu_seqlens_k: Tensor
    lengths: Tensor
    query_offsets: Tensor
    query_positions: Tensor
    rotation: Rotation | None
    keys: list[Tensor]
    values: list[Tensor]
    window: int | None
    flat: FlatReading | None = None

    def attend(self, q: Float[Tensor, "Q N H"], layer: int) -> Float[Tensor, "Q N H"]:
        """Returns what the queries take from the values of one cross-attention layer."""
        keys, values = self.keys[layer].to(q.dtype), self.values[layer].to(q.dtype)
        if self.flat is not None and (kernel := kernel_for(q)):
            return kernel(q, keys, values, self.cu_seqlens_q, self.cu_seqlens_k, *self.flat)
        return interpolated_attention(
            q,
            keys,
            values,
            cu_seqlens_q=self.cu_seqlens_q,
            cu_seqlens_k=self.cu_seqlens_k,
            lengths=self.lengths,
            query_offsets=self.query_offsets,
            window=self.window,
        )


def starts(counts: Sequence[int]) -> Int[Tensor, " N1"]:
    """Returns int32 [n + 1], the starts of parts of these sizes and the total."""
    return F.pad(torch.tensor(counts).cumsum(0), (1, 0)).to(torch.int32)


def query_rows(spans: Sequence[VoiceSpan] | Sequence[TextSpan]) -> Int[Tensor, " Q"]:
    """Returns the rows of all spans that read, span after span."""
    return torch.cat([torch.arange(s.first_query, s.first_query + s.num_queries) for s in spans])


def key_rows(
    spans: Sequence[VoiceSpan] | Sequence[TextSpan],
) -> tuple[Int[Tensor, " M"], PackedSequences]:
    """Returns the rows of all spans that are read, span after span, and where each span's rows lie."""
    rows = torch.cat([torch.arange(s.first_key, s.first_key + s.num_keys) for s in spans])
    counts = [s.num_keys for s in spans]
    return rows, PackedSequences.of(starts(counts), max(counts))


def keys_values(
    layers: Sequence[CrossAttention], source: Float[Tensor, "M D"], positions: Float[Tensor, " M"]
) -> tuple[list[Tensor], list[Tensor]]:
    """Returns keys and values of what is read, for each of these layers."""
    if not layers:
        return [], []
    to = layers[0].rotation(positions)
    pairs = [layer.keys_values(source, to) for layer in layers]
    return [keys for keys, _ in pairs], [values for _, values in pairs]


def resampled_positions(count: int, length: int) -> Float[Tensor, " M"]:
    """Returns the place of each of `count` keys after they are stretched to `length`."""
    return (torch.arange(count) + 0.5) * (length / max(count, 1)) - 0.5


class SourceEncoder(nn.Module):
    """Gives every row that is read a view of its neighbours on both sides.

    The backbone is causal: its row of a letter does not depend on the next letter. What is read is complete
    beforehand, so two residual layers over five neighbours may reach four rows to each side.

    Args:
        width: Width of the rows.
    """

    NEIGHBOURS = 5

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(RMSNorm(width) for _ in range(2))
        self.mixes = nn.ModuleList(nn.Linear(self.NEIGHBOURS * width, width) for _ in range(2))

    def reset_parameters(self) -> None:
        """Draws the initial weights."""
        draw(*self.mixes)

    def forward(self, rows: Float[Tensor, "M D"], layout: PackedSequences) -> Float[Tensor, "M D"]:
        """Returns the rows of the turns of `layout`, each with its neighbours mixed in."""
        x = rows
        for norm, mix in zip(self.norms, self.mixes, strict=True):
            x = x + F.silu(mix(near_rows(norm(x), layout, self.NEIGHBOURS)))
        return x


class TextNow(nn.Module):
    """Adds the text of the very frame that a voice row predicts to the row, before the first layer.

    Args:
        width: Width of the rows.
        gate: Initial gate; its tanh weighs what is added.
    """

    def __init__(self, width: int, gate: float) -> None:
        super().__init__()
        self.norm, self.proj = RMSNorm(width), nn.Linear(width, width, bias=False)
        self.gate = nn.Parameter(torch.full((1,), gate))

    def reset_parameters(self) -> None:
        """Draws the initial weights."""
        draw(self.proj)

    def forward(self, text: Float[Tensor, "Q D"]) -> Float[Tensor, "Q D"]:
        """Returns what is added to the voice rows whose frames have this text."""
        return torch.tanh(self.gate) * self.proj(self.norm(text))


class CrossAttention(nn.Module):
    """Cross-attention of one kind of rows in one layer, added to these rows through a gate.

    Args:
        width: Width of the rows.
        n_heads: Number of heads.
        base: Base of the rotary positions.
        gate: Initial gate; its tanh weighs what is read. With 0 the layer changes nothing.
    """

    frequencies: Tensor

    def __init__(self, width: int, n_heads: int, base: float, gate: float) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norm, self.source_norm = RMSNorm(width), RMSNorm(width)
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            nn.Linear(width, width, bias=False) for _ in range(4)
        )
        self.gate = nn.Parameter(torch.full((1,), gate))
        self.register_buffer("frequencies", rotary_frequencies(width // n_heads, base), persistent=False)

    def reset_parameters(self, branch_std: float) -> None:
        """Draws the initial weights."""
        draw(self.q_proj, self.k_proj, self.v_proj)
        draw(self.o_proj, std=branch_std)

    def rotation(self, positions: Float[Tensor, " M"]) -> Rotation:
        """Returns the rotation of rows at these positions, equal for all layers of one model."""
        return rotation(positions, self.frequencies)

    def keys_values(
        self, source: Float[Tensor, "M D"], to: Rotation
    ) -> tuple[Float[Tensor, "M N H"], Float[Tensor, "M N H"]]:
        """Returns keys, rotated to their positions, and values of the rows that are read."""
        normed = self.source_norm(source)
        shape = (len(source), self.n_heads, source.shape[1] // self.n_heads)
        keys = rotate(self.k_proj(normed).view(shape), to)
        return keys, self.v_proj(normed).view(shape)

    def forward(self, x: Float[Tensor, "Q D"], reading: RowsThatRead, layer: int) -> Float[Tensor, "Q D"]:
        """Returns what is added to the rows that read.

        Args:
            x: Rows `reading.queries` of the residual stream.
            reading: What they read.
            layer: Index of this layer among the cross-attention layers.
        """
        heads = (len(x), self.n_heads, x.shape[1] // self.n_heads)
        to = reading.rotation or self.rotation(reading.query_positions)
        q = rotate(self.q_proj(self.norm(x)).view(heads), to)
        out = reading.attend(q, layer)
        return torch.tanh(self.gate) * self.o_proj(out.to(x.dtype).flatten(1))
