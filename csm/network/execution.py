"""How a CSMModel is run while it is trained: compiled, recomputing activations, or multiplying in float8."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import nn

from csm.network.conversation_network import ConversationNetwork
from csm.network.float8 import require_float8, use_float8
from csm.network.layers import TransformerBlock
from csm.network.lora import LoRALinear

# Most graphs of one run whose micro-batches are padded.
GRAPHS = 32
COMPILED = ("nothing", "blocks", "step", "graphs")


@dataclass(frozen=True, kw_only=True)
class ExecutionConfig:
    """What may be traded for time and memory.

    The losses are those of the plain run, up to rounding; what is compiled or padded draws other numbers for
    dropout, and `float8` rounds more.

    Attributes:
        compile: Part of a step that torch.compile compiles: "nothing"; "blocks", every transformer block of
            backbone and depth decoder, which saves time in long runs (docs/MEASURED.md); "step", the whole
            forward and backward pass as one graph for batches of any size, a fifth of the operator calls of
            the plain run (docs/GPU.md); or "graphs", the same for micro-batches that are all padded to one
            size, which CUDA replays as CUDA graphs. The first steps compile: "blocks" for a minute or more,
            the others for minutes on a CPU. None with ZeRO-3, which gathers weights in hooks that no graph
            can hold.
        checkpoint_layers: Whether only each block's input is kept and the block is computed again in the
            backward pass: about a third more time for the memory of all activations inside blocks.
        float8: Whether attention, feed-forward blocks and heads multiply in float8 while training: inputs and
            weights in e4m3, gradients in e5m2 (`csm.network.float8`). The weights stay as they are. Needs a
            GPU of compute capability 8.9 or more; a CPU emulates it. Watch the losses: `python
            benchmarks/float8_losses.py` compares them with bf16's.
    """

    compile: Literal["nothing", "blocks", "step", "graphs"] = "nothing"
    checkpoint_layers: bool = False
    float8: bool = False

    @property
    def fixed_shapes(self) -> bool:
        """Whether all micro-batches are padded to one size (`csm.network.fixed_shapes`)."""
        return self.compile == "graphs"

    def __post_init__(self) -> None:
        if self.compile not in COMPILED:
            raise ValueError(f"compile is {self.compile!r}: expected one of {', '.join(COMPILED)}")


def apply_execution(
    model: ConversationNetwork,
    config: ExecutionConfig,
    *,
    zero_stage: int,
    device: torch.device | None = None,
) -> None:
    """Switches how the model runs, in place, before an engine takes it.

    Args:
        model: The model.
        config: How it is to run.
        zero_stage: Stage of ZeRO that it is trained with.
        device: Where it is going to be trained; None: where it is.

    Raises:
        ValueError: Something is compiled, or float8 is used, with ZeRO-3, or the whole step is compiled with
            recomputed layers, or float8 is used with adapters or on a device that has no float8 products.
    """
    if config.compile != "nothing" and zero_stage == 3:
        raise ValueError(
            f"execution.compile is {config.compile!r} with training.zero_stage 3: expected 'nothing', or a "
            f"stage of 0 to 2, where every rank holds whole weights"
        )
    if config.compile in ("step", "graphs") and config.checkpoint_layers:
        raise ValueError(
            f"execution.compile is {config.compile!r} with execution.checkpoint_layers: expected "
            "compile='blocks', or checkpoint_layers=false; the compiler chooses by itself what is computed "
            "again"
        )
    if config.float8:
        if zero_stage == 3:
            raise ValueError(
                "execution.float8 with training.zero_stage 3: expected a stage of 0 to 2, or float8=false; "
                "no test covers both"
            )
        if any(isinstance(layer, LoRALinear) for layer in model.modules()):
            raise ValueError(
                "execution.float8 with adapters (LoRA): expected float8=false, as most of the products would "
                "stay what they are"
            )
        require_float8(device or model.audio_embedding.weight.device)
        use_float8(model)
        model.float8_heads = True
    blocks = [*model.backbone.blocks, *model.depth_decoder.blocks]
    for block in cast(list[TransformerBlock], blocks):
        block.checkpointed = config.checkpoint_layers
        if config.compile == "blocks":
            # Batches differ in rows and longest sequence: sizes are symbols from the start.
            block.compile(dynamic=True)
    if config.compile in ("step", "graphs"):
        compile_step(model, fixed_shapes=config.fixed_shapes)


def compile_step(
    model: nn.Module, backend: str | Callable[..., Any] = "inductor", *, fixed_shapes: bool = False
) -> None:
    """Compiles a model's call, and its backward pass, to one graph.

    Args:
        model: The model.
        backend: What torch.compile hands the graphs to.
        fixed_shapes: Whether all training batches have one size, so that CUDA replays the graphs as CUDA
            graphs; False: one graph for batches of any size.
    """
    # Here, as the compiler takes seconds to import.
    import torch._dynamo
    import torch.fx.experimental._config as shape_config

    # Label smoothing is a constant of a run.
    torch._dynamo.config.specialize_float = True
    if fixed_shapes:
        # Inductor copies a batch to buffers of its own and replays; on a CPU it calls what it compiled.
        mode = "reduce-overhead" if backend == "inductor" else None
        # A graph for each multiple of the sizes; with dynamic=False more than this many end the run.
        torch._dynamo.config.recompile_limit = max(GRAPHS, torch._dynamo.config.recompile_limit)
        model.compile(fullgraph=True, dynamic=False, backend=backend, mode=mode)
        compiled: Any = model._compiled_call_impl

        def call(*args: Any, **kwargs: Any) -> Any:
            # Batches of validation have sizes of their own.
            return (compiled if model.training else model._call_impl)(*args, **kwargs)

        model._compiled_call_impl = call
        return
    # A size that equals another one by chance, or a constant of the model, would be compiled in.
    shape_config.use_duck_shape = False
    model.compile(fullgraph=True, dynamic=True, backend=backend)
