"""The options of a training run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

TrackerName = Literal["auto", "none", "tensorboard", "trackio", "wandb"]


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long, how fast and how safely to train.

    Attributes:
        steps: Number of optimizer steps of the whole run.
        micro_batches: Number of micro-batches of one step, spread over ranks and accumulation; the batch size
            and thus the result do not depend on the number of ranks. Must be a multiple of the number of
            ranks.
        learning_rate: Peak of the learning rate, reached after warm-up.
        betas: Decay rates of AdamW's first and second moments, each 0 to below 1.
        weight_decay: Weight decay of AdamW, on parameters of two or more dimensions only.
        warmup_steps: Number of steps of linear warm-up from 0.
        final_learning_rate_ratio: Learning rate of the last step as a share of the peak, 0 to 1 (cosine decay
            in between).
        clip: Largest norm of the gradient of one module; 0: no clipping.
        zero_stage: Stage of ZeRO, which sets what DeepSpeed partitions over the ranks: 0 nothing, 1 optimizer
            state, 2 gradients too, 3 parameters too.
        offload: State that ZeRO keeps in host memory instead of GPU memory: "none"; "optimizer", the moments
            and the weights that they update (zero_stage 1 or more); "all", the partitioned weights too
            (zero_stage 3).
        precision: Precision of the forward and backward pass: "fp32", or "bf16", autocast to bfloat16 over
            fp32 weights, moments and buffers.
        ema_decay: Decay rate of the moving average of the weights; 0: no average. Above 0, the run exports
            the average.
        checkpoint_every: Number of steps between checkpoints (the last step always writes one).
        keep_checkpoints: Number of newest verified checkpoints that are kept.
        validate_every: Number of steps between validations (the last step always has one).
        log_every: Number of steps between lines of metrics.jsonl; each line is the mean since the line
            before.
        samples: Whether each validation writes clips to listen to, in samples/ and in the tracker.
        tracker: Tracker that receives metrics and clips besides the run's own files: "auto" (TensorBoard
            where it is installed), "none", "tensorboard", "trackio" or "wandb".
        seed: Seed of all random numbers of the run.
    """

    steps: int = 1000
    micro_batches: int = 2
    learning_rate: float = 8e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    warmup_steps: int = 50
    final_learning_rate_ratio: float = 0.05
    clip: float = 1.0
    zero_stage: int = 2
    offload: Literal["none", "optimizer", "all"] = "none"
    precision: Literal["fp32", "bf16"] = "fp32"
    ema_decay: float = 0.0
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    validate_every: int = 200
    log_every: int = 10
    samples: bool = True
    tracker: TrackerName = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "micro_batches",
            "checkpoint_every",
            "keep_checkpoints",
            "validate_every",
            "log_every",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        for name in ("warmup_steps", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 0 or more")
        for name in ("weight_decay", "clip"):
            if not (math.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise ValueError(f"{name} is {getattr(self, name)}: expected a finite number, 0 or more")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate is {self.learning_rate}: expected a number above 0")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas is {self.betas}: expected two numbers in [0, 1)")
        if not 0 <= self.final_learning_rate_ratio <= 1:
            raise ValueError(
                f"final_learning_rate_ratio is {self.final_learning_rate_ratio}: expected 0 to 1"
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"ema_decay is {self.ema_decay}: expected 0 (off) or a number below 1")
        if self.zero_stage not in (0, 1, 2, 3):
            raise ValueError(f"zero_stage is {self.zero_stage}: expected 0, 1, 2 or 3")
        if self.offload not in ("none", "optimizer", "all"):
            raise ValueError(f"offload is {self.offload!r}: expected 'none', 'optimizer' or 'all'")
        needed = {"none": 0, "optimizer": 1, "all": 3}[self.offload]
        if self.zero_stage < needed:
            raise ValueError(
                f"offload is {self.offload!r}: expected 'none' with zero_stage {self.zero_stage}; it "
                f"needs stage {needed} or more; set offload first to change both"
            )
        if self.tracker not in get_args(TrackerName):
            raise ValueError(
                f"tracker is {self.tracker!r}: expected one of {', '.join(get_args(TrackerName))}"
            )
        if self.precision not in ("fp32", "bf16"):
            raise ValueError(
                f"precision is {self.precision!r}: expected 'fp32' or 'bf16'; fp16 is not supported "
                "(DeepSpeed refuses it on CPU, and bf16 needs no loss scaling)"
            )
