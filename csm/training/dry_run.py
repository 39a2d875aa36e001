"""What a training would take, said before anything is loaded: memory of a rank, arithmetic of a batch.

The model is built on the meta device, so parameters are counted exactly. What DeepSpeed holds of them follows
`csm.training.engine`; activations are an estimate. `FORMULAS` says both as they are computed.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import nn

from csm.data.dataset import DatasetConfig
from csm.model import CSMModel
from csm.network.execution import ExecutionConfig
from csm.network.io.checkpoints import on_meta
from csm.network.model_config import CSMConfig, TransformerShape
from csm.sequences.turns import FRAMES_PER_SECOND
from csm.text import text_codec
from csm.training.engine import bucket_elements
from csm.training.finetuning import FinetuneConfig, make_trainable
from csm.training.options import TrainingConfig

GPUS = (1, 2, 4, 8, 16, 32, 64)
# DeepSpeed's default of stage3_max_live_parameters: weights of other ranks that may be at hand at once.
MOST_GATHERED = 1_000_000_000
CARDS = (24, 48, 80)  # GB of a GPU's memory
# Bytes that are not estimated: CUDA's context, the allocator's slack.
UNCOUNTED = 1e9, 1.05

FORMULAS = """bytes of one rank; N parameters, T of them trained, L in linear layers, P GPUs, fp32 weights:
  parameters   stages 0-2: 4 N; stage 3: 4 N / P and 4 min(N, 1e9) gathered; bf16: 2 L more, cast for a step
  gradients    stages 0, 1: 4 T; stages 2, 3: 4 T / P; stages 1-3: a bucket of 4 max(B, min(T, 5e7)) more,
               B the largest trained parameter
  optimizer    stage 0: 8 T; stages 1-3: (8 + 4) T / P, two moments and the weights they update;
               a weight average (training.ema_decay): 4 T or 4 T / P more
  offload      "optimizer": optimizer and 8 T / P of gradients, summed and to be used, are on the host; "all":
               4 N / P of weights too
  activations  an estimate: rows of a micro-batch x backbone layers x (34 w + 8 k + 6 f) in bf16, (40 w +
               16 k + 12 f) in fp32; w width, k width of the keys, f feed-forward; the same for the depth
               decoder over frames x depth_share x codebooks; with execution.checkpoint_layers 4 w a layer
               and one whole layer of each; 4 bytes a weight of the heads; the embedded codes of these
               frames; what cross-attention and memory read
  not counted  the allocator's slack, NCCL, CUDA's context (about 1 GB), copies during the update, when no
               activations are left; a checkpoint's copy on the host; and the start: each rank reads the model
               whole (4 N on the host, then once 4 N on its GPU) before ZeRO cuts it"""


class Counts(NamedTuple):
    """Parameters.

    Attributes:
        all, trained: How many there are, and are trained.
        linear: Weights of linear layers, the depth decoder's heads among them.
        bucket: Gradient elements that are reduced at a time.
    """

    all: int
    trained: int
    linear: int
    bucket: int


class Memory(NamedTuple):
    """Bytes of one rank. The first four are on its GPU, the last in the host's memory."""

    parameters: float
    gradients: float
    optimizer: float
    activations: float
    host: float

    @property
    def gpu(self) -> float:
        """Bytes on the GPU."""
        return sum(self) - self.host


def count_parameters(model: CSMConfig, finetune: FinetuneConfig) -> Counts:
    """Counts without making a weight.

    Raises:
        ValueError: As `make_trainable`.
    """
    whole = on_meta(CSMModel, model)
    make_trainable(whole, finetune)
    parameters = dict(whole.named_parameters())
    trained = [p.numel() for p in parameters.values() if p.requires_grad]
    embeddings = sum(m.weight.numel() for m in whole.modules() if isinstance(m, nn.Embedding))
    matrices = sum(p.numel() for p in parameters.values() if p.ndim >= 2)
    return Counts(
        all=sum(p.numel() for p in parameters.values()),
        trained=sum(trained),
        linear=matrices - embeddings,
        bucket=bucket_elements(trained),
    )


def memory(counts: Counts, training: TrainingConfig, gpus: int, stage: int, activations: float) -> Memory:
    """Bytes of one rank by `FORMULAS`; an offload that needs a higher stage is left out."""
    share = gpus if stage else 1
    bucket = 4 * counts.bucket if stage else 0
    weights = 4 * counts.all / (gpus if stage == 3 else 1)
    gathered = 4 * min(counts.all, MOST_GATHERED) if stage == 3 else 0
    cast = 2 * counts.linear if training.precision == "bf16" else 0
    gradients = 4 * counts.trained / (gpus if stage >= 2 else 1)
    states = (8 + (4 if stage else 0) + (4 if training.ema_decay else 0)) * counts.trained / share
    host = 0.0
    if training.offload != "none" and stage:
        host, states = host + states + 8 * counts.trained / gpus, 0.0
        gradients = 0.0 if stage >= 2 else gradients
    if training.offload == "all" and stage == 3:
        host, weights = host + weights, 0.0
    return Memory(weights + gathered + cast, gradients + bucket, states, activations, host)


def block_bytes(shape: TransformerShape, precision: str) -> float:
    """Bytes that one transformer block keeps of a row for its backward pass.

    Counted on blocks, by what autograd saves. The residual stream, norms and the rotation are fp32; with bf16
    every linear layer keeps its input in bf16.
    """
    keys = shape.width // shape.heads * shape.kv_heads
    if precision == "bf16":
        return 34 * shape.width + 8 * keys + 6 * shape.hidden
    return 40 * shape.width + 16 * keys + 12 * shape.hidden


def transformer_bytes(shape: TransformerShape, precision: str, execution: ExecutionConfig) -> float:
    """Bytes that a transformer's blocks keep of a row: everything, or their inputs and one block."""
    whole = block_bytes(shape, precision)
    return 4 * shape.width * shape.layers + whole if execution.checkpoint_layers else shape.layers * whole


def activation_bytes(
    model: CSMConfig, data: DatasetConfig, precision: str, execution: ExecutionConfig
) -> float:
    """Bytes of one micro-batch's forward pass that wait for the backward pass: an estimate from the sizes."""
    outer, inner = model.shapes
    rows, size = data.rows_per_micro_batch, 2 if precision == "bf16" else 4
    # The depth decoder runs on all codebooks of the drawn frames.
    depth_rows = round(rows * data.depth_share) * model.num_codebooks
    blocks = rows * transformer_bytes(outer, precision, execution)
    blocks += depth_rows * transformer_bytes(inner, precision, execution)
    # Heads keep the gradient of their weights and of their inputs, fp32, instead of logits.
    text = model.text_vocab_size or text_codec(model.text, model.max_speakers).vocab_size
    heads = (model.audio_vocab_size + text) * outer.width
    heads += (model.num_codebooks - 1) * model.audio_vocab_size * inner.width
    inputs = rows * outer.width + depth_rows * inner.width
    # Embedded codes of the drawn frames, joined with the backbone's rows, then cast for the projection.
    embedded = depth_rows * outer.width * (8 + size)
    # Each reading of the other modality, and of the memory: about a block's attention over all rows.
    reads = len(model.layers_of("cross_layers")) + len(model.layers_of("memory_layers"))
    read = rows * reads * 14 * outer.width * size
    return blocks + 4 * (heads + inputs) + embedded + read


def dry_run(
    model: CSMConfig,
    finetune: FinetuneConfig,
    data: DatasetConfig,
    training: TrainingConfig,
    execution: ExecutionConfig,
) -> list[str]:
    """The lines of `launch/train.py --dry-run`.

    Raises:
        ValueError: As `make_trainable`.
    """
    counts = count_parameters(model, finetune)
    activations = activation_bytes(model, data, training.precision, execution)
    lines = [
        *fit_lines(counts, training, activations),
        "",
        f"{counts.all:,} parameters, {counts.trained:,} of them trained ({', '.join(finetune.train)}"
        + (f" without {', '.join(finetune.freeze)}" if finetune.freeze else "")
        + f"), {training.precision}, offload {training.offload}",
        "",
        "memory per rank in GB (10^9 bytes); * is the recipe's ZeRO stage",
        " GPUs stage  parameters  gradients  optimizer  activations     GPU    host  accumulation",
    ]
    for gpus in GPUS:
        for stage in range(4):
            need = memory(counts, training, gpus, stage, activations)
            figures = (need.parameters, need.gradients, need.optimizer, need.activations, need.gpu, need.host)
            widths = (11, 10, 10, 12, 7, 7)
            row = " ".join(f"{value / 1e9:{width}.2f}" for value, width in zip(figures, widths, strict=True))
            shared = f"{training.micro_batches // gpus}" if training.micro_batches % gpus == 0 else "-"
            mark = "*" if stage == training.zero_stage else " "
            lines.append(f"{gpus:5} {stage:4}{mark} {row}  {shared:>12}")
    return [*lines, "", *FORMULAS.splitlines(), "", *batch_lines(model, data, training)]


def fit_lines(counts: Counts, training: TrainingConfig, activations: float) -> list[str]:
    """Says of each card whether one of it is enough, and else how many are in which stage."""
    context, slack = UNCOUNTED

    def needed(gpus: int, stage: int) -> float:
        return (slack * memory(counts, training, gpus, stage, activations).gpu + context) / 1e9

    lines = []
    for card in CARDS:
        one = needed(1, training.zero_stage)
        line = f"fits a card of {card} GB: {'yes' if one <= card else 'no'}, {one:.1f} GB are needed"
        if one > card:
            first = next(((g, s) for g in GPUS for s in range(4) if needed(g, s) <= card), None)
            line += (
                "; no number of them suffices: lower data.rows_per_micro_batch"
                if first is None
                else (f"; {first[0]} of them are enough with training.zero_stage={first[1]}")
            )
        lines.append(line)
    return lines


def batch_lines(model: CSMConfig, data: DatasetConfig, training: TrainingConfig) -> list[str]:
    """Micro-batches, accumulation and frames of an optimizer step."""
    count, rows = training.micro_batches, training.micro_batches * data.rows_per_micro_batch
    frames = round(data.rows_per_micro_batch * data.depth_share)
    fits = [gpus for gpus in GPUS if count % gpus == 0]
    lines = [
        f"a step: {count} micro-batches of up to {data.rows_per_micro_batch:,} rows = up to {rows:,} rows,",
        f"  text ids and frames together; if all were frames: {rows:,} frames, "
        f"{rows / FRAMES_PER_SECOND / 60:.1f} minutes of speech",
        f"  codebook 0 learns from every frame, codebooks 1 to {model.num_codebooks - 1} from "
        f"{data.depth_share:.4g} of them: up to {frames:,} a micro-batch, {frames * count:,} a step",
        f"  P GPUs accumulate {count} / P micro-batches each; the result does not depend on P",
        f"  {count} micro-batches can be shared by {', '.join(map(str, fits))} GPUs: for others set "
        f"training.micro_batches to a multiple of the GPUs",
        f"a run: {training.steps:,} steps = up to {training.steps * rows:,} rows",
    ]
    return lines
