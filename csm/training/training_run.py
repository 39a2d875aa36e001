"""What every step of a training run needs, in one place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch

from csm.training.distributed import DistributedContext
from csm.training.metrics import MetricAccumulator
from csm.training.options import TrainingConfig
from csm.training.plain_engine import Engine
from csm.training.task import Task


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """What every step of a run needs.

    Attributes:
        task: What is trained.
        config: Options of the run.
        output: Folder of the run.
        distributed: Ranks of the run.
        engines: Engine of each module, in the order of their updates.
        metrics: Sums since the last report.
    """

    task: Task
    config: TrainingConfig
    output: Path
    distributed: DistributedContext
    engines: dict[str, Engine]
    metrics: MetricAccumulator = field(default_factory=MetricAccumulator)

    def autocast(self) -> torch.autocast:
        """Returns bfloat16 arithmetic over fp32 weights where `precision` asks for it."""
        bf16 = self.config.precision == "bf16"
        return torch.autocast(self.distributed.device.type, torch.bfloat16, enabled=bf16)
