"""Memory that runs out: at the first step micro-batches are cut into pieces; later one line reports it."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch

from csm.system.host_memory import peak_memory
from csm.system.log import log
from csm.training.batches import on_device
from csm.training.reproducibility import seed_everything
from csm.training.training_run import TrainingRun

# Share of a card's memory above which a line warns.
NEARLY_FULL = 0.95


@runtime_checkable
class Divisible(Protocol):
    """A task whose micro-batches can be cut into pieces with the same loss and gradient.

    Attributes:
        pieces: How many; 1: whole.
    """

    pieces: int

    def most_pieces(self, step: int, micro_batch: int) -> int:
        """Returns how many pieces a micro-batch can be cut into."""
        ...


def fit_memory(run: TrainingRun, step: int) -> None:
    """Cuts micro-batches into twice as many pieces until one fits into memory; every rank calls this.

    Each rank tries the loss and gradient of its first micro-batch of `step`, without a collective, so that a
    rank whose memory runs out leaves no other waiting; all ranks then cut alike. Nothing is tried where
    memory does not run out in an exception, nor in ZeRO-3, whose weights are gathered by collectives.
    """
    task, distributed = run.task, run.distributed
    partitioned = any(engine.partitioned_weights for engine in run.engines.values())
    if not isinstance(task, Divisible) or partitioned or not can_run_out(distributed.device):
        return
    most = task.most_pieces(step, distributed.rank)
    while distributed.any(not fits(run, step)) and distributed.any(task.pieces < most):
        task.pieces *= 2
    if task.pieces > 1:
        log.warning(
            "a whole micro-batch does not fit into memory: each is computed in %d pieces, forward passes "
            "twice; the step, its loss and its gradient stay the same",
            task.pieces,
        )


def fits(run: TrainingRun, step: int) -> bool:
    """Returns whether this rank's first micro-batch of a step can be computed; changes nothing."""
    batch = on_device(run.task.batch(step, run.distributed.rank), run.distributed.device)
    try:
        for name, engine in run.engines.items():
            seed_everything(run.config.seed, step, run.distributed.rank, name)
            with run.autocast():
                result = run.task.loss(name, engine.module, batch, step)
            trained = [p for p in engine.module.parameters() if p.requires_grad]
            if result is not None:
                torch.autograd.grad(result[0], trained, allow_unused=True)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        del batch
        gc.collect()
        if run.distributed.device.type == "cuda":
            torch.cuda.empty_cache()
    return True


def can_run_out(device: torch.device) -> bool:
    """Returns whether too large an allocation raises: on a GPU, and where the process' memory is limited."""
    if device.type == "cuda":
        return True
    if sys.platform == "win32":
        return False
    import resource

    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def is_out_of_memory(error: BaseException) -> bool:
    """Returns whether an error says that an allocation failed, on a GPU or in the host's memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # The allocator of the host's memory raises a plain RuntimeError.
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@contextmanager
def memory_errors_in_one_line() -> Iterator[None]:
    """Turns an allocation that fails into a line that says what can be done.

    Raises:
        ValueError: Memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise ValueError(
            "memory ran out in a step; checkpoints are intact. Expected room for a micro-batch: lower "
            "data.rows_per_micro_batch (utterances.items for a tokenizer) and raise training.micro_batches "
            "by the same factor, set execution.checkpoint_layers=true, or a higher training.zero_stage; "
            "csm train --dry-run estimates each"
        ) from error


class PeakMemory:
    """Says in one line what the first step needed, and again when a card is nearly full."""

    def __init__(self, title: str, steps: int, device: torch.device) -> None:
        self.title, self.steps, self.device = title, steps, device
        self.said = self.warned = False
        cuda = device.type == "cuda"
        self.card = torch.cuda.get_device_properties(device).total_memory if cuda else 0

    def look(self, step: int) -> None:
        """Looks at the peak after a step."""
        peak = peak_memory(self.device)
        if not self.said:
            self.said = True
            log.info("%s: step %d of %d, %s", self.title, step, self.steps, self._text(peak))
        if self.card and peak > NEARLY_FULL * self.card and not self.warned:
            self.warned = True
            log.warning("step %d: %s; a longer micro-batch may not fit", step, self._text(peak))

    def _text(self, peak: int) -> str:
        text = f"peak memory of a rank {peak / 1e9:.2f} GB"
        return f"{text} of its card's {self.card / 1e9:.1f} GB" if self.card else text
