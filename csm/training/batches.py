"""The batches of this rank's micro-batches, made ahead where a GPU leaves the processor idle."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch

from csm.training.distributed import DistributedContext
from csm.training.options import TrainingConfig
from csm.training.task import Task


class Batches:
    """Batches by step; on a GPU the next step's are made while this one runs."""

    def __init__(self, task: Task, config: TrainingConfig, distributed: DistributedContext) -> None:
        self.task, self.steps, self.device = task, config.steps, distributed.device
        self.micro_batches = range(distributed.rank, config.micro_batches, distributed.size)
        self.pool = ThreadPoolExecutor(1) if distributed.device.type == "cuda" else None
        self.ahead: dict[int, Future[dict[int, Any]]] = {}

    def of(self, step: int) -> dict[int, Any]:
        """Returns {micro-batch: batch} of a step, on the device."""
        made = self.ahead.pop(step).result() if step in self.ahead else self._make(step)
        if self.pool is not None and step < self.steps:
            self.ahead[step + 1] = self.pool.submit(self._make, step + 1)
        return {number: on_device(batch, self.device) for number, batch in made.items()}

    def _make(self, step: int) -> dict[int, Any]:
        return {number: self.task.batch(step, number) for number in self.micro_batches}


def on_device(batch: Any, device: torch.device) -> Any:
    """Moves a batch to the device: tensors, dicts, lists and tuples of them, and anything with `.to`."""
    if isinstance(batch, dict):
        return {key: on_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(on_device(value, device) for value in batch)
    return batch.to(device) if hasattr(batch, "to") else batch
