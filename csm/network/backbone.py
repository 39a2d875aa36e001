"""The transformer over rows: text and voice of a conversation in one causal sequence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

from jaxtyping import Float
from torch import Tensor, nn

from csm.network.cross_attention import CrossAttention, Reading, TextNow
from csm.network.layers import RMSNorm, RowLayout, TransformerBlock
from csm.network.memory import MemoryRead, MemoryState


class ReadingKeys(NamedTuple):
    """What the rows of one direction read.

    Attributes:
        reading: Who reads what.
        keys, values: [M, N, H] per cross-attention layer.
        said: [M, D], what is said in each frame; None where voice is read.
    """

    reading: Reading
    keys: list[Tensor]
    values: list[Tensor]
    said: Tensor | None = None


class Backbone(nn.Module):
    """Transformer blocks, some of which also read the other modality of their turn and the memory.

    Args:
        width, n_layers, n_heads, n_kv_heads, hidden: Sizes.
        base, scaling: Of the rotary positions.
        cross_layers, memory_layers: Which layers read the other modality, and the memory.
        window: Frames to each side that a voice row reads of the text.
        slots: Memory slots of each kind.
        gate: Initial gates.
        dropout: On the residual branches.
    """

    def __init__(
        self,
        *,
        width: int,
        n_layers: int,
        n_heads: int,
        n_kv_heads: int,
        hidden: int,
        base: float,
        scaling: float,
        cross_layers: Sequence[int],
        memory_layers: Sequence[int],
        window: int,
        slots: int,
        gate: float,
        dropout: float,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            TransformerBlock(width, n_heads, n_kv_heads, hidden, base, scaling, dropout)
            for _ in range(n_layers)
        )
        # Places on one turn's clock span hundreds, not thousands: base 10,000.
        self.voice_reads = nn.ModuleDict(
            {str(i): CrossAttention(width, n_heads, window, 1e4, gate) for i in cross_layers}
        )
        self.text_reads = nn.ModuleDict(
            {str(i): CrossAttention(width, n_heads, None, 1e4, gate) for i in cross_layers}
        )
        self.memory_reads = nn.ModuleDict(
            {str(i): MemoryRead(width, n_heads, slots, gate) for i in memory_layers}
        )
        self.text_now = TextNow(width, gate) if cross_layers else None
        self.norm = RMSNorm(width)

    def reading_keys(
        self, source: Float[Tensor, "M D"], reading: Reading, *, voice_reads: bool
    ) -> ReadingKeys:
        """Keys and values of one direction for every cross-attention layer."""
        layers = self.voice_reads if voice_reads else self.text_reads
        pairs = [cast(CrossAttention, layer).keys_values(source, reading) for layer in layers.values()]
        said = source if voice_reads else None
        return ReadingKeys(reading, [k for k, _ in pairs], [v for _, v in pairs], said)

    def forward(
        self,
        x: Float[Tensor, "R D"],
        positions: Tensor,
        attend: RowLayout,
        *,
        voice_keys: ReadingKeys | None = None,
        text_keys: ReadingKeys | None = None,
        memory: MemoryState | None = None,
    ) -> Float[Tensor, "R D"]:
        """Hidden rows, normalised.

        Args:
            x: [R, D], embedded rows of all sequences.
            positions: int64 [R], place of each row in its sequence.
            attend: How rows attend to each other.
            voice_keys: What voice rows read (text); None leaves this reading out.
            text_keys: What text rows read (voice); None leaves this reading out.
            memory: Of every sequence; None leaves the memory out.
        """
        if self.text_now is not None and voice_keys is not None and voice_keys.said is not None:
            reading = voice_keys.reading
            x = x.index_add(0, reading.queries, self.text_now(voice_keys.said[reading.now]).to(x.dtype))
        cross = 0
        for index, block in enumerate(self.blocks):
            x = block(x, positions, attend, index)
            if str(index) in self.voice_reads:
                for keys, layers in ((voice_keys, self.voice_reads), (text_keys, self.text_reads)):
                    if keys is not None:
                        queries = keys.reading.queries
                        layer = cast(CrossAttention, layers[str(index)])
                        out = layer.read(x[queries], keys.keys[cross], keys.values[cross], keys.reading)
                        x = x.index_add(0, queries, out.to(x.dtype))
                cross += 1
            if memory is not None and str(index) in self.memory_reads:
                x = self.memory_reads[str(index)](x, attend, memory)
        return self.norm(x)
