"""Validation during a training: metrics and clips of held-out data, which change nothing of the training."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from csm.system.log import log
from csm.training.metric_logger import MetricLogger
from csm.training.reproducibility import seed_everything
from csm.training.samples import Audible, Clips, write_samples
from csm.training.training_run import TrainingRun


@torch.no_grad()
def validate(run: TrainingRun, step: int, reports: MetricLogger) -> None:
    """Validates on rank 0 while the others wait; leaves every module in training mode.

    Nothing of the training depends on it: every micro-batch is seeded by itself.
    """
    values: dict[str, float] = {}
    clips: Clips = {}
    partitioned = [engine for engine in run.engines.values() if engine.partitioned_weights]
    if run.distributed.rank == 0 or partitioned:
        seed_everything(run.config.seed, step, "validation")
        for module in run.task.modules.values():
            module.eval()
        with run.autocast():
            call: Callable[[], Any] = partial(validated, run, step)
            for engine in partitioned:
                # ZeRO-3 gathers what is read only inside a forward of its engine.
                call = partial(engine.forward, call)
            values, clips = call()
        for module in run.task.modules.values():
            module.train()
    reports.validated(step, values)
    keep_samples(run, step, clips, reports)
    run.distributed.barrier()


def validated(run: TrainingRun, step: int) -> tuple[dict[str, float], Clips]:
    """Returns the task's validation metrics and clips."""
    values = run.task.validate(step)
    if run.config.samples and isinstance(run.task, Audible):
        return values, run.task.samples(step)
    return values, {}


def keep_samples(run: TrainingRun, step: int, clips: Clips, reports: MetricLogger) -> None:
    """Writes the clips on rank 0; a failure is shown and does not stop the training."""
    if run.distributed.rank != 0 or not clips or not isinstance(run.task, Audible):
        return
    reports.clips(step, clips)
    try:
        write_samples(run.output, step, clips, run.task.originals())
    except (OSError, ValueError) as error:
        log.warning("the samples of step %d are not written: %s", step, error)
