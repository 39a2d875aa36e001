"""Memory that runs out: at the first step micro-batches are cut into pieces; later one line reports it."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch

from csm.system.host_memory import peak_memory
from csm.system.log import log
from csm.training.batches import on_device
from csm.training.distributed import DistributedContext
from csm.training.heartbeat import stop_heartbeat
from csm.training.options import TrainingConfig
from csm.training.reproducibility import seed_everything
from csm.training.training_run import TrainingRun

# Share of a card's memory above which a line warns.
NEARLY_FULL = 0.95
# Field of the recipe's training, by that of what a micro-batch is made of.
TRAININGS = {"utterances": "tokenizer_training", "semantic_utterances": "semantic_training"}
FAILED_ALLOCATION = (
    "can't allocate memory",
    "not enough memory",
    "CUDA out of memory",
    "CUDA error: out of memory",
    "STATUS_ALLOC_FAILED",
)


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


@runtime_checkable
class Sized(Protocol):
    """A task whose micro-batches have a size.

    Attributes:
        micro_batch: The field of the config that sets it, and its value.
    """

    @property
    def micro_batch(self) -> tuple[str, int]: ...


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
    # The allocator of the host's memory and CUDA's libraries raise a plain RuntimeError.
    return isinstance(error, RuntimeError) and any(text in str(error) for text in FAILED_ALLOCATION)


@contextmanager
def memory_errors_in_one_line(
    task: object, config: TrainingConfig, distributed: DistributedContext
) -> Iterator[None]:
    """Turns an allocation that fails into a line that says what can be done; the other ranks end, too.

    Raises:
        ValueError: Memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        stop_heartbeat(failed=True)
        raise ValueError(shortage(error, task, config, distributed)) from error


def shortage(
    error: BaseException, task: object, config: TrainingConfig, distributed: DistributedContext
) -> str:
    """Returns one line on an allocation that failed: the memory, the micro-batch, and what can be done."""
    found = re.search(r"(?:tried|[Uu]nable) to allocate ([\d.]+) ?(\w+)", str(error), re.IGNORECASE)
    asked = f"{_readable(*found.groups())} more" if found else "more"
    peak, room = peak_memory(distributed.device), room_of(distributed.device)
    field, value = task.micro_batch if isinstance(task, Sized) else ("the size of a micro-batch", None)
    pieces = task.pieces if isinstance(task, Divisible) else 1
    size = "" if value is None else f"{field} is {value}"
    whole = f"{size}, computed in {pieces} pieces" if pieces > 1 else size
    stage, ranks = config.zero_stage, distributed.size
    ways = (
        ["execution.checkpoint_layers=true (execution.compile=nothing or blocks)"]
        if isinstance(task, Divisible)
        else []
    )
    training = TRAININGS.get(field.split(".")[0], "training")
    ways += ["more ranks" if stage == 3 else f"{training}.zero_stage=3 on several GPUs"]
    # That estimates the model's training alone.
    dry_run = "csm train --dry-run estimates each. " if training == "training" else ""
    return (
        f"memory ran out on rank {distributed.rank} of {ranks} (ZeRO stage {stage}): {asked} was asked for "
        f"after a peak of {peak / 1e9:.2f} GB{room}; {whole + ': ' if whole else ''}lower {field} and raise "
        f"{training}.micro_batches, {config.micro_batches}, by the same factor, or take {' or '.join(ways)}. "
        f"{dry_run}Checkpoints are intact"
    )


def room_of(device: torch.device) -> str:
    """Returns the memory that the peak is a part of, as words that follow it; "" where it is unknown."""
    if device.type == "cuda":
        return f" of its card's {torch.cuda.get_device_properties(device).total_memory / 1e9:.2f} GB"
    if sys.platform == "win32":
        return ""
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY:
        return f" within its limit of {limit / 1e9:.2f} GB"
    return f" of the machine's {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.2f} GB"


def _readable(number: str, unit: str) -> str:
    return f"{float(number) / 1e9:.2f} GB" if unit == "bytes" else f"{number} {unit}"


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
