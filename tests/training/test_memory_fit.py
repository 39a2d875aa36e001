"""A training whose memory is limited cuts its micro-batches and has the losses of one that is not.

Run as a script (`test_memory_fit.py FOLDER BYTES`) this file trains in a process that may take that number
of bytes more than it has at the start; 0: any, and the last line is what it took.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from csm.data.code_shards import EncodedTurn
from csm.data.dataset import ConversationDataset, DatasetConfig
from csm.data.manifest import Conversation, Corpus, Turn
from csm.data.turn_table_file import table_of
from csm.losses import LossConfig
from csm.model import CSMModel
from csm.network.model_config import CSMConfig
from csm.system.log import configure_log
from csm.training import engine
from csm.training.distributed import DistributedContext
from csm.training.loop import train
from csm.training.memory_fit import PeakMemory, can_run_out, is_out_of_memory, memory_errors_in_one_line
from csm.training.model_task import ModelTask
from csm.training.options import TrainingConfig

ROOT = Path(__file__).resolve().parents[2]
MODEL = {"d_model": 128, "n_layers": 4, "n_heads": 4, "depth_d_model": 32, "depth_n_layers": 1}
MODEL |= {"depth_n_heads": 2, "num_codebooks": 4, "semantic_codebooks": 2, "codebook_size": 32}
STEPS = 2
CPU = torch.device("cpu")


class LimitedTask(ModelTask):
    """Lifts the limit of the process' memory after its last step: only steps are cut."""

    def after_step(self, step: int) -> None:
        if step == STEPS:
            resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def large_task(root: Path) -> ModelTask:
    """A small model whose micro-batches of 4,200 rows need hundreds of times the memory of its weights."""

    def turn(name: str, index: int) -> Turn:
        kept = {"speaker": "A", "text": "abc", "audio": "a.wav", "end": 1.0}
        return Turn(id=f"{name}_{index}", conversation=name, index=index, **kept)

    names = [f"c{number}" for number in range(8)]
    conversations = tuple(
        Conversation(id=name, split="train", turns=tuple(turn(name, i) for i in range(8))) for name in names
    )
    corpus = Corpus(root=root, conversations=conversations, info={})
    g = torch.Generator().manual_seed(0)
    encoded = {
        t.id: EncodedTurn(
            t.id,
            torch.randint(0, 32, (4, 80), generator=g).short(),
            torch.rand(80, 3, generator=g).half(),
            torch.zeros(1),
        )
        for t in corpus.turns()
    }
    torch.manual_seed(0)
    model = CSMModel(CSMConfig(**MODEL, max_context=1024, memory_slots=4))
    config = DatasetConfig(rows_per_micro_batch=4200, max_rows=180, past_turns=0)
    sizes = {"num_codebooks": 4, "end_code": 32, "config": config, "seed": 0, "codec": model.codec}
    table = table_of(corpus, encoded, "train", model.codec, numbers={"A": 0})
    data = ConversationDataset(table, micro_batches=1, **sizes)
    task = LimitedTask(model, data, data, LossConfig(), device=CPU)
    task.validation_batch = data.in_order(200)
    return task


def main(folder: Path, spare: int) -> None:
    """Trains two steps, with `spare` bytes more than the process has."""
    engine.deepspeed_installed = lambda: False
    config = TrainingConfig(steps=STEPS, micro_batches=1, warmup_steps=1, log_every=1, tracker="none")
    task = large_task(folder)
    # What is loaded at its first use is loaded before the limit.
    loss, _ = task.loss("model", task.model, task.validation_batch, 1)
    torch.autograd.grad(loss, [*task.model.parameters()], allow_unused=True)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    if spare:
        resource.setrlimit(resource.RLIMIT_AS, (held + spare, resource.RLIM_INFINITY))
    train(task, config, folder / "run", run_description={}, device="cpu")
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(int(status["VmPeak"].split()[0]) * 1024 - held)


def trained(folder: Path, spare: int) -> subprocess.CompletedProcess[str]:
    folder.mkdir()
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    more = {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    # Memory comes from the system and goes back there at once: without, what a heap keeps is anyone's guess.
    more |= {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "0"}
    command = [sys.executable, __file__, str(folder), str(spare)]
    return subprocess.run(command, env={**os.environ, **more}, capture_output=True, text=True, timeout=200)


def losses(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line.pop("split") == "train"]


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="limits a process' memory as Linux does")
def test_where_memory_is_short_micro_batches_are_cut_and_the_losses_stay(tmp_path: Path) -> None:
    free = trained(tmp_path / "free", 0)
    assert free.returncode == 0 and "pieces" not in free.stderr, free.stderr
    needed = int(free.stdout.splitlines()[-1])
    short = trained(tmp_path / "short", needed * 6 // 10)
    assert short.returncode == 0, short.stderr
    assert "a whole micro-batch does not fit into memory: each is computed in " in short.stderr
    assert "step 1 of 2, peak memory of a rank" in short.stderr
    for ours, theirs in zip(losses(tmp_path / "short"), losses(tmp_path / "free"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="limits a process' memory as Linux does")
def test_where_not_even_a_piece_fits_one_line_says_what_to_do(tmp_path: Path) -> None:
    none = trained(tmp_path / "none", 95 << 20)
    assert none.returncode == 1
    last = none.stderr.splitlines()[-1]
    assert last.startswith("ValueError: memory ran out on rank 0 of 1 (ZeRO stage 2): ")
    assert re.search(r"data.rows_per_micro_batch is 4200, computed in \d+ pieces: lower data.rows_per", last)
    assert "within its limit of " in last and last.endswith("Checkpoints are intact")


def test_only_failed_allocations_are_told_as_such() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value) and is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    one = DistributedContext(rank=0, size=1, local_size=1, device=CPU)
    with pytest.raises(RuntimeError, match="shape"), memory_errors_in_one_line(None, TrainingConfig(), one):
        raise RuntimeError("shape mismatch")
    assert not can_run_out(CPU)


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has"),
            "2.50 GiB more",
        ),
        (
            RuntimeError(
                "DefaultCPUAllocator: can't allocate memory: you tried to allocate 8000000000 bytes."
            ),
            "8.00 GB",
        ),
        (MemoryError("Unable to allocate 7.45 GiB for an array with shape (1000000000,)"), "7.45 GiB more"),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            ": more was",
        ),
    ],
)
@pytest.mark.parametrize(("stage", "way"), [(2, "training.zero_stage=3 on several GPUs"), (3, "more ranks")])
def test_a_line_names_what_was_asked_for_and_the_ways_out(error, asked: str, stage: int, way: str) -> None:
    three = DistributedContext(rank=1, size=3, local_size=3, device=CPU)
    config = TrainingConfig(zero_stage=stage, micro_batches=6)
    with pytest.raises(ValueError, match=f"rank 1 of 3 .ZeRO stage {stage}") as raised:
        with memory_errors_in_one_line(None, config, three):
            raise error
    line = str(raised.value)
    assert asked in line and "\n" not in line and f"or take {way}. csm train --dry-run" in line
    assert "lower the size of a micro-batch and raise training.micro_batches, 6, by the same factor" in line


def test_the_peak_is_told_once_and_a_nearly_full_card_warned_of_once(caplog) -> None:
    watch = PeakMemory("run", 10, CPU)
    with caplog.at_level("INFO", "csm"):
        watch.look(1)
        watch.look(2)
        watch.card = 1000
        watch.look(3)
        watch.look(4)
    first, warning = caplog.messages
    assert first.startswith("run: step 1 of 10, peak memory of a rank ") and "card" not in first
    assert warning.startswith("step 3: peak memory of a rank") and "may not fit" in warning


if __name__ == "__main__":
    configure_log()
    main(Path(sys.argv[1]), int(sys.argv[2]))
