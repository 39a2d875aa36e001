"""Means over micro-batches and steps; one JSON line at a time; progress that any terminal can show."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch

from csm.training.distributed import DistributedContext
from csm.training.metrics import MetricsFile, Progress, Window

ALONE = DistributedContext(rank=0, size=1, local_size=1, device=torch.device("cpu"))


def test_a_window_gives_means_over_what_was_added_and_is_then_empty() -> None:
    window = Window()
    for value in (1.0, 2.0, 6.0):
        window.add("model/loss", torch.tensor(value, requires_grad=True))
    window.add("judge/loss", torch.tensor(4.0))
    assert window.means(ALONE) == {"judge/loss": 4.0, "model/loss": 3.0}
    assert window.means(ALONE) == {}


def test_the_state_of_an_open_window_is_restored() -> None:
    window, other = Window(), Window()
    window.add("loss", torch.tensor(1.0))
    values, tensors = window.state()
    other.load(json.loads(json.dumps(values)), tensors, torch.device("cpu"))
    other.add("loss", torch.tensor(2.0))
    assert other.means(ALONE) == {"loss": 1.5}


def test_a_resume_keeps_earlier_lines_and_drops_later_and_half_written_ones(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path, after_step=0)
    for step in (1, 2, 3):
        file.write(step, "train", {"loss": step / 2})
    file.close()
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "sp')
    resumed = MetricsFile(tmp_path, after_step=2)
    resumed.write(3, "validation", {"loss": float("nan")})
    resumed.close()
    found = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in found] == [1, 2, 3]
    assert found[-1] == {"step": 3, "split": "validation", "loss": None}


def test_a_log_file_gets_the_last_line_and_not_one_per_step() -> None:
    stream = io.StringIO()
    progress = Progress("run", steps=50, done=0, shown=True, stream=stream)
    progress.note = "loss 1.5"
    for _ in range(50):
        progress.advance()
    progress.close()
    assert stream.getvalue() == "run: step 50/50 loss 1.5\n"


def test_a_terminal_without_utf_8_gets_ascii_only() -> None:
    pytest.importorskip("tqdm")

    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    raw = io.BytesIO()
    stream = Terminal(raw, encoding="ascii", errors="strict")
    progress = Progress("run", steps=3, done=1, shown=True, stream=stream)
    progress.advance()
    progress.advance()
    progress.close()
    stream.flush()
    assert b"3/3" in raw.getvalue()


def test_nothing_is_shown_on_the_other_ranks() -> None:
    stream = io.StringIO()
    Progress("run", steps=1, done=0, shown=False, stream=stream).advance()
    assert stream.getvalue() == ""
