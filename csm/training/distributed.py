"""The ranks of a run and their devices, and what ranks say to each other."""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from csm.system.host_memory import keep_freed_memory
from csm.system.threads import available_cores
from csm.training.heartbeat import end_with_the_others, start_heartbeat, stop_heartbeat

# What gloo and NCCL say where the process of another rank has ended.
BROKEN = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "gloo", "NCCL")


@dataclass(frozen=True, kw_only=True)
class DistributedContext:
    """The ranks of this run and the device of this one."""

    rank: int
    size: int
    local_size: int
    device: torch.device

    def sum(self, values: Tensor) -> Tensor:
        """Returns the elementwise sum over all ranks (in place)."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:
        """Returns whether the flag is set on at least one rank; every rank gets the same answer."""
        if self.size == 1:
            return flag
        return bool(self.sum(torch.tensor([float(flag)], device=self.device)).item())

    def from_first(self, value: int) -> int:
        """Returns rank 0's integer on every rank."""
        if self.size == 1:
            return value
        tensor = torch.tensor([value], dtype=torch.int64, device=self.device)
        dist.broadcast(tensor, 0)
        return int(tensor.item())

    def barrier(self) -> None:
        """Waits until every rank has come here."""
        self.any(False)


def start_distributed(device: str = "auto") -> DistributedContext:
    """Joins the ranks that the deepspeed launcher or torchrun started; plain python is one rank.

    Args:
        device: "auto" (CUDA where there is a GPU, else CPU), "cpu" or "cuda".

    Raises:
        ValueError: An unknown device, or CUDA asked for where there is none.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device: expected 'auto', 'cpu' or 'cuda', got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: 'cuda' was asked for, but torch sees no GPU; use 'auto' or 'cpu'")
    # The launchers hand the ranks over in these variables; there is no other way.
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", size)))
    if device == "cuda" or (device == "auto" and torch.cuda.is_available()):
        place = torch.device("cuda", local_rank)
        torch.cuda.set_device(place)
        # cuDNN's attention plans every new length for 20 ms; packed batches have a new one each step.
        torch.backends.cuda.enable_cudnn_sdp(False)
    else:
        place = torch.device("cpu")
        keep_freed_memory()
        torch.set_num_threads(max(1, available_cores() // local_size))
    if size > 1 and not dist.is_initialized():
        backend = "nccl" if place.type == "cuda" else "gloo"
        # So long because one rank may validate for long; a rank that hangs is noticed by its heartbeat.
        dist.init_process_group(backend, timeout=timedelta(minutes=60))
        start_heartbeat(rank, size)
        atexit.register(leave_distributed)
    return DistributedContext(rank=rank, size=size, local_size=local_size, device=place)


@contextmanager
def failing_together() -> Iterator[None]:
    """Ends the other ranks, with a line each, where this one fails: for work without collectives.

    A launcher ends them by itself; srun without --kill-on-bad-exit does not, and they would wait for ever.
    """
    try:
        yield
    except BaseException:
        stop_heartbeat(failed=True)
        raise


@contextmanager
def broken_collectives_in_one_line() -> Iterator[None]:
    """Ends this rank without a traceback where a collective breaks because another rank has failed."""
    try:
        yield
    except RuntimeError as error:
        if any(text in str(error) for text in BROKEN):
            end_with_the_others()
        raise


def leave_distributed() -> None:
    """Leaves the process group; registered to run at the interpreter's exit."""
    if dist.is_initialized():
        stop_heartbeat()
        dist.destroy_process_group()
        _let_gloo_come_to_rest()


def _let_gloo_come_to_rest(seconds: float = 5.0) -> None:
    """Waits until gloo's threads are idle.

    DeepSpeed keeps references to its groups, so gloo's threads outlive them. One that has yet to drop the
    tensors of a finished operation asks for the interpreter to do it; where that is gone, the process aborts:
    a complete run with a status of -6. Asleep three times in a row, interpreter free, none has anything left
    to drop.
    """
    deadline, asleep = time.monotonic() + seconds, 0
    while asleep < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
        asleep = 0 if gloo_is_busy(Path("/proc/self/task")) else asleep + 1


def gloo_is_busy(tasks: Path) -> bool:
    """Whether a gloo thread among `tasks` (Linux' folder of a process' threads) is running or about to."""
    for stat in tasks.glob("*/stat"):
        try:
            name, _, rest = stat.read_text().partition("(")[2].rpartition(")")
        except FileNotFoundError:  # ended meanwhile
            continue
        if "gloo" in name and rest.split()[0] == "R":
            return True
    return False
