"""Batches are the same whoever makes them, and the processes that do end with their rank."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from csm.training.batches import WORKERS, Batches
from csm.training.distributed import DistributedContext
from csm.training.options import TrainingConfig

CONFIG = TrainingConfig(steps=9, micro_batches=4, warmup_steps=1)
SECOND = DistributedContext(rank=1, size=2, local_size=2, device=torch.device("cpu"))
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")


class Noise:
    """A task of noise, which notes who made it; a step may fail."""

    def __init__(self, fails: int = 0) -> None:
        self.fails = fails

    def batch(self, step: int, micro_batch: int) -> dict[str, Tensor]:
        if step == self.fails:
            raise ValueError(f"step {step} is bad")
        noise = torch.randn(3, generator=torch.Generator().manual_seed(10 * step + micro_batch))
        return {"noise": noise, "maker": torch.tensor(os.getpid())}


def made(task: Noise, first: int = 1) -> Iterator[dict[int, dict[str, Tensor]]]:
    batches = Batches(task, CONFIG, SECOND)  # type: ignore[arg-type]
    for step in range(first, CONFIG.steps + 1):
        yield batches.of(step)


def no_process_is_left() -> bool:
    deadline = time.monotonic() + 15
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)
    return not multiprocessing.active_children()


@pytest.mark.parametrize("first", [1, 6])
def test_processes_make_the_batches_that_the_rank_itself_makes(
    monkeypatch: pytest.MonkeyPatch, first: int
) -> None:
    own = list(made(Noise(), first))
    monkeypatch.setenv(WORKERS, "2")
    theirs = list(made(Noise(), first))
    assert [list(step) for step in theirs] == [[1, 3]] * len(own)  # the micro-batches of the second rank
    for ours, other in zip(own, theirs, strict=True):
        assert all(torch.equal(ours[number]["noise"], other[number]["noise"]) for number in ours)
    makers = {int(step[1]["maker"]) for step in theirs}
    assert len(makers) == 2 and os.getpid() not in makers
    assert no_process_is_left()


def test_an_error_of_a_process_is_the_rank_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKERS, "1")
    steps = made(Noise(fails=3))
    assert [1, 3] == list(next(steps)) == list(next(steps))
    with pytest.raises(ValueError, match="^step 3 is bad$") as raised:
        next(steps)
    # Its traceback holds what the rank held.
    assert no_process_is_left() and raised.value


def test_what_is_closed_leaves_no_process_though_it_is_still_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKERS, "2")
    batches = Batches(Noise(), CONFIG, SECOND)  # type: ignore[arg-type]
    batches.of(1)
    assert len(multiprocessing.active_children()) == 2
    batches.close()
    batches.close()
    assert no_process_is_left()


def test_a_signal_to_all_processes_leaves_the_batches_of_the_last_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(WORKERS, "2")
    steps = made(Noise())
    next(steps)  # the second process may not have begun yet
    for child in multiprocessing.active_children():
        for number in (signal.SIGTERM, signal.SIGINT):
            os.kill(child.pid or 0, number)
    assert len(list(steps)) == CONFIG.steps - 1


def test_a_number_of_processes_that_is_none_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKERS, "-1")
    with pytest.raises(ValueError, match="CSM_BATCH_WORKERS is '-1': expected a number of processes"):
        next(made(Noise()))
