"""Memory that runs out in a step of one or all ranks is one line of each, in every ZeRO stage.

Run as a script (`test_memory_of_ranks.py FOLDER`) this file trains: it imports once and forks the ranks.
"""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from csm.cli import process
from csm.training import heartbeat
from csm.training.loop import train
from csm.training.options import TrainingConfig

spec = importlib.util.spec_from_file_location("ranks", Path(__file__).with_name("test_rank_counts.py"))
rank_counts = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rank_counts)

ROOT = Path(__file__).resolve().parents[2]
# ZeRO stage, ranks, and those whose memory runs out.
CASES = [(stage, ranks, failing) for stage in range(4) for ranks, failing in ((1, "0"), (2, "01"))]
CASES += [(stage, 2, failing) for stage in (2, 3) for failing in "01"]


class HungryTask(rank_counts.CoderTask):
    """Asks for an exabyte in the first step of some ranks."""

    micro_batch = ("utterances.items", 4)

    def __init__(self, notes: Path, failing: str) -> None:
        super().__init__(notes, stop_after=0)
        self.failing = failing

    def loss(self, name, module, batch, step):
        loss, parts = super().loss(name, module, batch, step)
        if os.environ["RANK"] in self.failing:
            torch.empty(1 << 60, dtype=torch.uint8)
        return loss, parts


def one_rank(folder: Path, stage: int, failing: str) -> None:
    task = HungryTask(folder / "notes.jsonl", failing)
    config = TrainingConfig(**rank_counts.CONFIG, zero_stage=stage)  # type: ignore[arg-type]
    train(task, config, folder / "run", run_description={}, device="cpu")


def on_ranks(folder: Path, stage: int, ranks: int, failing: str) -> None:
    """Forks the ranks, each with a file for what it says, and waits for them."""
    folder.mkdir()
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1])})
    children = []
    for rank in range(ranks):
        child = os.fork()
        if child == 0:
            here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
            os.environ.update({key: str(value) for key, value in here.items()})
            said = os.open(folder / f"rank{rank}.txt", os.O_CREAT | os.O_WRONLY)
            os.dup2(said, 1)
            os.dup2(said, 2)
            status = 70
            try:
                status = process.guarded("csm train", lambda: one_rank(folder, stage, failing))
            finally:
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    statuses = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    (folder / "statuses.txt").write_text(" ".join(map(str, statuses)))


def main(folder: Path) -> None:
    import deepspeed  # noqa: F401  (imported once, before the ranks are forked)

    heartbeat.BEAT_S = process.GRACE_S = 1.0  # 5 times as fast
    heartbeat.SILENT_BEATS = 60
    for case in CASES:
        on_ranks(folder / "_".join(map(str, case)), *case)


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders of all cases."""
    pytest.importorskip("deepspeed")
    folder = tmp_path_factory.mktemp("memory")
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    more = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    command = [sys.executable, __file__, str(folder)]
    done = subprocess.run(command, env={**os.environ, **more}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.processes
@pytest.mark.parametrize(("stage", "ranks", "failing"), CASES)
def test_all_ranks_end_and_one_line_names_the_memory_the_micro_batch_and_what_to_do(
    ended: Path, stage: int, ranks: int, failing: str
) -> None:
    folder = ended / f"{stage}_{ranks}_{failing}"
    statuses = [int(status) for status in (folder / "statuses.txt").read_text().split()]
    texts = [(folder / f"rank{rank}.txt").read_text() for rank in range(ranks)]
    assert "Traceback" not in "".join(texts)
    reason = re.compile(
        rf"^csm train.*: memory ran out on rank \d of {ranks} \(ZeRO stage {stage}\): "
        r"1152921504.61 GB more was asked for after a peak of \d+\.\d\d GB of the machine's \d+\.\d\d GB; "
        r"utterances.items is 4: lower utterances.items and raise tokenizer_training.micro_batches, 6, by "
        r"the same factor, or take .+\. Checkpoints are intact$",
        re.MULTILINE,
    )
    for rank, (status, text) in enumerate(zip(statuses, texts, strict=True)):
        spoken = len(reason.findall(text))
        other = f"rank {rank}: rank" in text and "has failed, for the reason that it gave" in text
        if str(rank) not in failing:
            assert status == heartbeat.FAILED and other and not spoken, text
        else:  # with several at once, one may read of the other's before its own
            assert (status == process.BAD_INPUT and spoken == 1) or (len(failing) > 1 and other), text
    assert process.BAD_INPUT in statuses


if __name__ == "__main__":
    main(Path(sys.argv[1]))
