"""The transformer over rows: text and voice of a conversation in one causal sequence."""

from __future__ import annotations

from typing import Protocol, cast, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from csm.network.cross_attention import CrossAttention, RowsThatRead, TextNow
from csm.network.layers import RMSNorm, RowLayout, TransformerBlock
from csm.network.memory import MemoryRead, MemoryState
from csm.network.model_config import CSMConfig
from csm.network.text_reading import TextReading

# Places on one turn's clock span hundreds of frames, not thousands of rows.
TURN_ROPE_BASE = 1e4


@runtime_checkable
class VoiceRows(RowsThatRead, Protocol):
    """What the backbone asks of a reading of voice rows; the attributes are those of VoiceReading."""

    @property
    def frame_text(self) -> Tensor: ...

    @property
    def key_of_query(self) -> Tensor: ...


class Backbone(nn.Module):
    """Transformer blocks, some of which also read the other modality of their turn and the memory.

    Args:
        config: Sizes of the model.
    """

    def __init__(self, config: CSMConfig) -> None:
        super().__init__()
        shape, _ = config.shapes
        self.blocks = nn.ModuleList(
            TransformerBlock(
                shape, base=config.rope_base, scaling=config.rope_scaling, dropout=config.dropout
            )
            for _ in range(shape.layers)
        )
        cross_layers = config.layers_of("cross_layers")

        def cross_attention() -> nn.ModuleDict:
            layer = (shape.width, shape.heads, TURN_ROPE_BASE, config.gate)
            return nn.ModuleDict({str(i): CrossAttention(*layer) for i in cross_layers})

        # Cross-attention of voice rows over text, and of text rows over voice, by the index of the block.
        self.voice_reads, self.text_reads = cross_attention(), cross_attention()
        self.memory_reads = nn.ModuleDict(
            {
                str(i): MemoryRead(
                    shape.width, shape.heads, config.memory_slots, config.gate, config.memory_kinds
                )
                for i in config.layers_of("memory_layers")
            }
        )
        self.text_now = TextNow(shape.width, config.gate) if cross_layers else None
        self.norm = RMSNorm(shape.width)

    def reset_parameters(self, branch_std: float) -> None:
        """Draws the initial weights; those that write to the residual stream with `branch_std`."""
        for block in self.blocks:
            cast(TransformerBlock, block).reset_parameters(branch_std)
        for layer in (*self.voice_layers(), *self.text_layers()):
            layer.reset_parameters(branch_std)
        for read in self.memory_reads.values():
            cast(MemoryRead, read).reset_parameters(branch_std)
        if self.text_now is not None:
            self.text_now.reset_parameters()

    def voice_layers(self) -> list[CrossAttention]:
        """Returns the cross-attention layers of voice rows, in order."""
        return [cast(CrossAttention, layer) for layer in self.voice_reads.values()]

    def text_layers(self) -> list[CrossAttention]:
        """Returns the cross-attention layers of text rows, in order."""
        return [cast(CrossAttention, layer) for layer in self.text_reads.values()]

    def forward(
        self,
        x: Float[Tensor, "R D"],
        positions: Tensor,
        attend: RowLayout,
        *,
        voice: VoiceRows | None = None,
        text: TextReading | None = None,
        memory: MemoryState | None = None,
    ) -> Float[Tensor, "R D"]:
        """Returns the normalised hidden rows.

        Args:
            x: [R, D], embedded rows of all sequences.
            positions: int64 [R], index of each row in its sequence.
            attend: How rows attend to each other.
            voice: Reading of the voice rows; None leaves it out.
            text: Reading of the text rows; None leaves it out.
            memory: Memory of every sequence; None leaves it out.
        """
        if self.text_now is not None and voice is not None:
            now = self.text_now(voice.frame_text[voice.key_of_query])
            x = x.index_add(0, voice.queries, now.to(x.dtype))
        to = cast(TransformerBlock, self.blocks[0]).rotation(positions)
        readings: tuple[tuple[RowsThatRead | None, nn.ModuleDict], ...]
        readings, cross = ((voice, self.voice_reads), (text, self.text_reads)), 0
        for index, block in enumerate(self.blocks):
            x = block(x, to, attend, index)
            if str(index) in self.voice_reads:
                for reading, layers in readings:
                    if reading is not None:
                        out = layers[str(index)](x.index_select(0, reading.queries), reading, cross)
                        x = x.index_add(0, reading.queries, out.to(x.dtype))
                cross += 1
            if memory is not None and str(index) in self.memory_reads:
                x = self.memory_reads[str(index)](x, attend, memory)
        return self.norm(x)
