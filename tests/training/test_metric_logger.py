"""A report is one line, and the same numbers go to metrics.jsonl and to the tracker."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from csm.training.distributed import DistributedContext
from csm.training.metric_logger import MetricLogger, duration
from csm.training.metrics import read_metrics
from csm.training.options import TrainingConfig

CONFIG = TrainingConfig(steps=50, micro_batches=2, tracker="none")


def logger(folder: Path, *, rank: int = 0, done: int = 0, **changes: object) -> MetricLogger:
    context = DistributedContext(rank=rank, size=1, local_size=1, device=torch.device("cpu"))
    shown = {"headline": ("net/loss", "net/square", "discriminator/loss"), "watched": "net/loss"}
    return MetricLogger(folder, CONFIG, done, **(shown | changes), distributed=context)


def lines(text: str) -> list[str]:
    return text.splitlines()


def test_a_report_is_one_line_with_everything_that_matters(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "a {brace} %s"
    folder.mkdir()
    with logger(folder) as reports:
        reports.validated(0, {"net/loss": 3.5, "net/other": 1.0})
        reports.trained(
            10, {"net/loss": 2.0, "net/square": 1.25, "net/x": 9.0}, learning_rate=1e-3, frames=80
        )
        reports.validated(10, {"net/loss": 2.75})
        reports.show(10)
        reports.show(11)
    first, second = lines(capsys.readouterr().err)
    assert first == "a {brace} %s: step 0 of 50, validation 3.5"
    pattern = (
        r"a {brace} %s: step 10 of 50, loss 2, square 1\.25, validation 2\.75 \(3\.5 at step 0\), "
        r"lr 1\.00e-03, [\d,]+ frames/s, 0:00 left, peak memory \d+\.\d\d GB"
    )
    assert re.fullmatch(pattern, second)


def test_the_first_reports_show_the_validation_before_the_first_step(tmp_path: Path, capsys) -> None:
    with logger(tmp_path) as reports:
        reports.validated(0, {"net/loss": 3.5})
        reports.trained(1, {"net/loss": 2.0}, learning_rate=1e-3, frames=80)
        reports.show(1)
    assert ", validation 3.5, lr" in lines(capsys.readouterr().err)[1]


def test_a_resumed_run_remembers_its_validations(tmp_path: Path, capsys) -> None:
    with logger(tmp_path) as reports:
        reports.validated(0, {"net/loss": 3.5})
        reports.validated(10, {"net/loss": 2.5})
        reports.validated(20, {"net/loss": 1.5})
    with logger(tmp_path, done=10) as reports:
        reports.trained(11, {"net/loss": 2.0}, learning_rate=1e-3, frames=80)
        reports.show(11)
    assert "validation 2.5 (3.5 at step 0)" in capsys.readouterr().err
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [0, 10, 11]


def test_other_ranks_show_and_write_nothing(tmp_path: Path, capsys) -> None:
    with logger(tmp_path, rank=1) as reports:
        reports.validated(0, {})
        reports.trained(1, {"net/loss": 2.0}, learning_rate=1e-3, frames=80)
        reports.show(1)
        reports.clips(1, {"a": (torch.zeros(1, 8), 8000)})
    assert capsys.readouterr().err == "" and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00"), (59.6, "1:00"), (3725, "1:02:05")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_tracker_that_fails_is_left_out_and_the_training_goes_on(tmp_path: Path, capsys) -> None:
    class Full:
        def scalars(self, step: int, values: object) -> None:
            raise OSError(28, "No space left on device", "events")

        clips = close = scalars

    with logger(tmp_path) as reports:
        reports.tracker = Full()  # type: ignore[assignment]
        for step in (10, 20):
            reports.trained(step, {"net/loss": 2.0}, learning_rate=1e-3, frames=80)
    assert capsys.readouterr().err == (
        "the tracker 'none' fails and is left out: [Errno 28] No space left on device: 'events'\n"
    )
    assert [line["step"] for line in read_metrics(tmp_path / "metrics.jsonl")] == [10, 20]
