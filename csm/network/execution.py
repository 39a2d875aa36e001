"""How a CSMModel is run while it is trained: compiled, or with activations recomputed; the results stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from torch import nn

from csm.network.conversation_network import ConversationNetwork
from csm.network.layers import TransformerBlock


@dataclass(frozen=True, kw_only=True)
class ExecutionConfig:
    """What may be traded for time and memory; the losses are those of the plain run, up to rounding.

    Attributes:
        compile: Whether torch.compile compiles every transformer block of backbone and depth decoder. It
            saves time in long runs (docs/MEASURED.md): the first steps compile for a minute or more. Not with
            ZeRO-3, which gathers weights in hooks that no graph can hold.
        checkpoint_layers: Whether only each block's input is kept and the block is computed again in the
            backward pass: about a third more time for the memory of all activations inside blocks.
    """

    compile: bool = False
    checkpoint_layers: bool = False


def apply_execution(model: ConversationNetwork, config: ExecutionConfig, *, zero_stage: int) -> None:
    """Switches the model's blocks, in place, before an engine takes it.

    Raises:
        ValueError: compile with ZeRO-3.
    """
    if config.compile and zero_stage == 3:
        raise ValueError(
            "execution.compile with training.zero_stage 3: expected compile=false, or a stage of 0 to 2, "
            "where every rank holds whole weights"
        )
    blocks = [*model.backbone.blocks, *model.depth_decoder.blocks]
    for block in cast(list[TransformerBlock], blocks):
        block.checkpointed = config.checkpoint_layers
        if config.compile:
            _compile(block)


def _compile(block: nn.Module) -> None:
    # Batches differ in rows and longest sequence: sizes are symbols from the start.
    block.compile(dynamic=True)
