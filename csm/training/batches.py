"""The batches of this rank, made ahead: by a thread on a GPU, by processes where asked for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from csm.training.distributed import DistributedContext
from csm.training.options import TrainingConfig
from csm.training.task import Task

# Environment variable: processes of a rank that make batches. Not a field of a run, which it does not change.
WORKERS = "CSM_BATCH_WORKERS"

Batch = dict[int, Any]


class Batches:
    """Batches by step, in order; a batch is a function of its step, whoever makes it.

    Raises:
        ValueError: CSM_BATCH_WORKERS is no number of processes.
    """

    def __init__(self, task: Task, config: TrainingConfig, distributed: DistributedContext) -> None:
        micro_batches = range(distributed.rank, config.micro_batches, distributed.size)
        self.made = _Steps(task, micro_batches)
        self.steps, self.device = config.steps, distributed.device
        self.workers = batch_workers()
        thread = distributed.device.type == "cuda" and not self.workers
        self.pool = ThreadPoolExecutor(1) if thread else None
        self.ahead: dict[int, Future[Batch]] = {}
        self.loader: Iterator[Batch | Exception] | None = None

    def of(self, step: int) -> Batch:
        """Returns {micro-batch: batch} of a step, on the device; steps are asked for in order."""
        if self.workers:
            made = self._by_processes(step)
        else:
            made = self.ahead.pop(step).result() if step in self.ahead else self.made.of(step)
        if self.pool is not None and step < self.steps:
            self.ahead[step + 1] = self.pool.submit(self.made.of, step + 1)
        return {number: on_device(batch, self.device) for number, batch in made.items()}

    def _by_processes(self, step: int) -> Batch:
        if self.loader is None:
            loader = DataLoader(
                self.made,
                batch_size=None,
                sampler=range(step, self.steps + 1),
                num_workers=self.workers,
                collate_fn=_as_it_is,
                # A task need not be picklable; what it maps and holds is shared.
                multiprocessing_context="fork",
            )
            with _signals_blocked():  # in the processes, which are forked here, for ever
                self.loader = iter(loader)
        made = next(self.loader)
        if isinstance(made, Exception):
            self.close()
            raise made
        return made

    def close(self) -> None:
        """Ends the processes and the thread.

        At the end of Python they would be waited for without end: they obey no signal that asks them to stop.
        """
        self.loader = None
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)


class _Steps(Dataset[Batch | Exception]):
    """The batches of one rank by step."""

    def __init__(self, task: Task, micro_batches: range) -> None:
        self.task, self.micro_batches = task, micro_batches

    def of(self, step: int) -> Batch:
        return {number: self.task.batch(step, number) for number in self.micro_batches}

    def __getitem__(self, step: int) -> Batch | Exception:
        """Returns an error instead of raising it: the rank raises it without the worker's traceback."""
        try:
            return self.of(step)
        except Exception as error:
            return error


def batch_workers() -> int:
    """Returns how many processes make the batches of a rank; 0: none.

    Raises:
        ValueError: CSM_BATCH_WORKERS is something else.
    """
    text = os.environ.get(WORKERS, "0")
    if not text.isdecimal():
        raise ValueError(f"{WORKERS} is {text!r}: expected a number of processes, 0 or more")
    return int(text)


def _as_it_is(made: Any) -> Any:
    return made


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Keeps requests to stop back: a rank still needs the batches of its last step.

    A scheduler sends them to all processes; processes that are forked meanwhile never obey them.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def on_device(batch: Any, device: torch.device) -> Any:
    """Moves a batch to the device: tensors, dicts, lists and tuples of them, and anything with `.to`."""
    if isinstance(batch, dict):
        return {key: on_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(on_device(value, device) for value in batch)
    return batch.to(device) if hasattr(batch, "to") else batch
