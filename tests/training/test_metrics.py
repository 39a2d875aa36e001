"""Means over micro-batches and steps; one JSON line at a time."""

from __future__ import annotations

import json
import re
from pathlib import Path

import torch

from csm.training.distributed import DistributedContext
from csm.training.metrics import MetricAccumulator, MetricsFile, read_metrics
from tests.full_disk import largest_file

ALONE = DistributedContext(rank=0, size=1, local_size=1, device=torch.device("cpu"))


def test_means_are_over_what_was_added_since_the_last_report() -> None:
    metrics = MetricAccumulator()
    for value in (1.0, 2.0, 6.0):
        metrics.add("model/loss", torch.tensor(value, requires_grad=True))
    metrics.add("discriminator/loss", torch.tensor(4.0))
    assert metrics.means(ALONE) == {"discriminator/loss": 4.0, "model/loss": 3.0}
    assert metrics.means(ALONE) == {}


def test_sums_between_two_reports_survive_a_checkpoint() -> None:
    metrics, other = MetricAccumulator(), MetricAccumulator()
    metrics.add("loss", torch.tensor(1.0))
    values, tensors = metrics.state()
    other.load(json.loads(json.dumps(values)), tensors, torch.device("cpu"))
    other.add("loss", torch.tensor(2.0))
    assert other.means(ALONE) == {"loss": 1.5}


def test_a_resume_keeps_earlier_lines_and_drops_later_and_half_written_ones(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path, after_step=0)
    for step in (1, 2, 3):
        file.write(step, "train", {"loss": step / 2})
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "sp')
    resumed = MetricsFile(tmp_path, after_step=2)
    resumed.write(3, "validation", {"loss": float("nan")})
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in found] == [1, 2, 3]
    assert found[-1] == {"step": 3, "split": "validation", "loss": None}


def test_a_run_that_starts_again_at_step_0_keeps_no_line(tmp_path: Path) -> None:
    MetricsFile(tmp_path, after_step=0).write(0, "validation", {"loss": 1.0})
    MetricsFile(tmp_path, after_step=0)
    assert (tmp_path / "metrics.jsonl").read_text() == ""


def test_a_full_disk_costs_lines_and_never_leaves_half_of_one(tmp_path: Path, capsys) -> None:
    file = MetricsFile(tmp_path, after_step=0)
    file.write(1, "train", {"loss": 1.0})
    with largest_file(file.path.stat().st_size + 10):
        file.write(2, "train", {"loss": 2.0})
        file.write(3, "train", {"loss": 3.0})
    file.write(4, "train", {"loss": 4.0})
    assert [line["step"] for line in read_metrics(file.path)] == [1, 4] and file.lost == 2
    assert len(file.path.read_text().splitlines()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(r"metrics.jsonl takes no more lines \(File too large; \d+ bytes are free\)", line)


def test_lines_that_are_no_metrics_are_left_out_and_counted(tmp_path: Path, capsys) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = '{"step": 1, "split": "train"}\n'
    path.write_text(whole + "[" * 10**5 + '\n{"step": "1"}\n' + whole + '{"half": ')
    assert [line["step"] for line in read_metrics(path)] == [1, 1]
    assert "2 lines are damaged and left out" in capsys.readouterr().err
