"""How a CSMModel is run while it is trained: compiled, or with activations recomputed; the results stay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from torch import nn

from csm.network.conversation_network import ConversationNetwork
from csm.network.layers import TransformerBlock

COMPILED = ("nothing", "blocks", "step")


@dataclass(frozen=True, kw_only=True)
class ExecutionConfig:
    """What may be traded for time and memory.

    The losses are those of the plain run, up to rounding; what is compiled draws other numbers for dropout.

    Attributes:
        compile: Part of a step that torch.compile compiles: "nothing"; "blocks", every transformer block of
            backbone and depth decoder, which saves time in long runs (docs/MEASURED.md); or "step", the whole
            forward and backward pass as one graph for batches of any size, a fifth of the operator calls of
            the plain run (docs/GPU.md). The first steps compile: "blocks" for a minute or more, "step" for
            minutes on a CPU. Neither with ZeRO-3, which gathers weights in hooks that no graph can hold.
        checkpoint_layers: Whether only each block's input is kept and the block is computed again in the
            backward pass: about a third more time for the memory of all activations inside blocks.
    """

    compile: Literal["nothing", "blocks", "step"] = "nothing"
    checkpoint_layers: bool = False

    def __post_init__(self) -> None:
        if self.compile not in COMPILED:
            raise ValueError(f"compile is {self.compile!r}: expected one of {', '.join(COMPILED)}")


def apply_execution(model: ConversationNetwork, config: ExecutionConfig, *, zero_stage: int) -> None:
    """Switches how the model runs, in place, before an engine takes it.

    Raises:
        ValueError: Something is compiled with ZeRO-3, or the whole step with recomputed layers.
    """
    if config.compile != "nothing" and zero_stage == 3:
        raise ValueError(
            f"execution.compile is {config.compile!r} with training.zero_stage 3: expected 'nothing', or a "
            f"stage of 0 to 2, where every rank holds whole weights"
        )
    if config.compile == "step" and config.checkpoint_layers:
        raise ValueError(
            "execution.compile is 'step' with execution.checkpoint_layers: expected compile='blocks', or "
            "checkpoint_layers=false; the compiler chooses by itself what is computed again"
        )
    blocks = [*model.backbone.blocks, *model.depth_decoder.blocks]
    for block in cast(list[TransformerBlock], blocks):
        block.checkpointed = config.checkpoint_layers
        if config.compile == "blocks":
            # Batches differ in rows and longest sequence: sizes are symbols from the start.
            block.compile(dynamic=True)
    if config.compile == "step":
        compile_step(model)


def compile_step(model: nn.Module, backend: str = "inductor") -> None:
    """Compiles a model's call, and its backward pass, to one graph for batches of any size."""
    # Here, as the compiler takes seconds to import.
    import torch._dynamo
    import torch.fx.experimental._config as shape_config

    # A size that equals another one by chance, or a constant of the model, would be compiled in.
    shape_config.use_duck_shape = False
    # Label smoothing is a constant of a run.
    torch._dynamo.config.specialize_float = True
    model.compile(fullgraph=True, dynamic=True, backend=backend)
