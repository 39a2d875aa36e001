"""A run that goes through 2, 1, 2 and 3 ranks equals one of one rank, in every ZeRO stage.

Run as a script (`test_rank_counts.py FOLDER`) this file trains: it imports once and forks a process for each
rank.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from csm.tokenizer.codebook import CodebookStack
from csm.training.loop import train
from csm.training.options import TrainingConfig
from csm_kernels import ema_update_stacks, rvq_search

ROOT = Path(__file__).resolve().parents[2]
# Ranks of each session, and the step after which it is stopped.
SESSIONS = ((2, 3), (1, 6), (2, 9), (3, 12))
STEPS, WIDTH = 12, 8
CONFIG = {"steps": STEPS, "micro_batches": 6, "learning_rate": 1e-3, "warmup_steps": 2, "clip": 0.2}
CONFIG |= {"ema_decay": 0.9, "log_every": 1, "checkpoint_every": 100, "validate_every": 100}


class Coder(nn.Module):
    """A net, and codebooks that follow what it is given, as the tokenizer's follow its encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(WIDTH, 33), nn.GELU(), nn.Dropout(0.1), nn.Linear(33, WIDTH))
        self.stack = CodebookStack(2, 16, WIDTH)


class CoderTask:
    """Trains a Coder; each rank notes the batches that it is given, by step and micro-batch."""

    def __init__(self, notes: Path, stop_after: int) -> None:
        torch.manual_seed(0)
        self.coder = Coder()
        self.modules: dict[str, nn.Module] = {"coder": self.coder}
        self.learning_rate_scales: dict[str, float] = {}
        self.headline, self.watched = ("coder/loss",), "coder/loss"
        self.notes, self.stop_after = notes, stop_after
        self.rows: list[Tensor] = []

    def batch(self, step: int, micro_batch: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(1000 * step + micro_batch)
        return {"x": torch.randn(4, WIDTH, generator=generator), "place": torch.tensor([step, micro_batch])}

    def batch_ids(self, batch: dict[str, Tensor]) -> list[str]:
        return [str(batch["place"].tolist())]

    def frames(self, batch: dict[str, Tensor]) -> Tensor:
        return torch.tensor(4)

    def loss(self, name: str, module: Coder, batch: dict[str, Tensor], step: int):
        with self.notes.open("a") as file:
            file.write(json.dumps([*batch["place"].tolist(), batch["x"].sum().item()]) + "\n")
        if step == self.stop_after and int(os.environ["RANK"]) == 0:
            self.stop_after = 0
            os.kill(os.getpid(), signal.SIGTERM)
        self.rows.append(batch["x"])
        return ((module.layers(batch["x"]) - batch["x"].flip(1)) ** 2).mean(), {}

    def after_step(self, step: int) -> dict[str, Tensor]:
        rows, stack = torch.cat(self.rows), self.coder.stack
        levels = torch.full((len(rows),), 2)
        codes = rvq_search(rows, stack.codebooks).codes
        ema_update_stacks([stack.assigned(rows, codes, levels)], step=step)
        self.rows = []
        return {}

    def validate(self, step: int) -> dict[str, float]:
        return {"coder/loss": 0.0}


def session(folder: Path, stages: Sequence[int], rank: int, ranks: int, stop_after: int) -> None:
    """Trains as one rank, in every stage, until a step."""
    here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
    os.environ.update({key: str(value) for key, value in here.items()})
    for stage in stages:
        output = folder / f"zero{stage}"
        output.mkdir(parents=True, exist_ok=True)
        task = CoderTask(output / f"notes_{ranks}_{rank}.jsonl", stop_after)
        config = TrainingConfig(**CONFIG, zero_stage=stage)  # type: ignore[arg-type]
        try:
            train(task, config, output, run_description={"stage": stage}, device="cpu")
        except SystemExit as stop:
            assert stop.code == 0


def on_ranks(folder: Path, stages: Sequence[int], ranks: int, stop_after: int) -> None:
    """Forks the ranks of one session and waits for them."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1])})
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                session(folder, stages, rank, ranks, stop_after)
                status = 0
            finally:
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children), f"{ranks} ranks"


def main(folder: Path) -> None:
    """Trains through the sessions in every stage, and at one go in one."""
    import deepspeed  # noqa: F401  (imported once, before the ranks are forked)

    for ranks, last in SESSIONS:
        on_ranks(folder, range(4), ranks, last)
    on_ranks(folder / "whole", [2], 1, STEPS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of the runs of every stage, and of the uninterrupted one."""
    pytest.importorskip("deepspeed")
    folder = tmp_path_factory.mktemp("ranks")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    more = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, env={**os.environ, **more}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line["coder/loss"] for line in lines if line["split"] == "train"]


def read_batches(folder: Path) -> list[list[float]]:
    """Every batch that any rank was given, by step and micro-batch."""
    texts = [line for path in folder.glob("notes_*") for line in path.read_text().splitlines()]
    return sorted(json.loads(text) for text in texts)


@pytest.mark.processes
@pytest.mark.parametrize("stage", range(4))
def test_through_2_1_2_and_3_ranks_data_and_codebooks_are_equal_and_losses_to_1e_6(
    trained: Path, stage: int
) -> None:
    through, whole = trained / f"zero{stage}", trained / "whole" / "zero2"
    record = json.loads((through / "run.json").read_text())["sessions"]
    assert [(one["ranks"], one["after_step"]) for one in record] == [(2, 0), (1, 3), (2, 6), (3, 9)]
    assert read_batches(through) == read_batches(whole)
    assert len(read_batches(whole)) == STEPS * 6
    assert losses(through) == pytest.approx(losses(whole), rel=1e-6) and len(losses(whole)) == STEPS
    ours, theirs = (load_file(folder / "weights_coder.safetensors") for folder in (through, whole))
    for name in ("codebooks", "usage", "vector_sum"):
        assert torch.equal(ours[f"stack.{name}"], theirs[f"stack.{name}"])
    start = CodebookStack(2, 16, WIDTH)
    assert not torch.equal(ours["stack.codebooks"], start.codebooks)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
