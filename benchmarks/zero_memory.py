"""What a rank holds in each ZeRO stage, beside what `csm train --dry-run` says: two processes on CPU cores.

    python benchmarks/zero_memory.py [--layers 24]

A net of linear layers trains three steps by DeepSpeed; the memory is what a process has of its own (private
pages) after the last one, minus that before its weights were made, so that buffers of the first steps count.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from csm.training.dry_run import Counts, memory
from csm.training.loop import train
from csm.training.options import TrainingConfig

WIDTH, STEPS, STAGES = 1024, 3, range(4)


class Net:
    """The task: a net of linear layers, whose memory is noted after the last step."""

    def __init__(self, layers: int, notes: Path) -> None:
        self.before = private_bytes()
        torch.manual_seed(0)
        self.net = nn.Sequential(*[nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)])
        self.modules: dict[str, nn.Module] = {"net": self.net}
        self.learning_rate_scales: dict[str, float] = {}
        self.headline, self.watched = ("net/loss",), "net/loss"
        self.notes = notes

    def batch(self, step: int, micro_batch: int) -> Tensor:
        return torch.randn(2, WIDTH, generator=torch.Generator().manual_seed(10 * step + micro_batch))

    def batch_ids(self, batch: Tensor) -> list[str]:
        return ["noise"]

    def frames(self, batch: Tensor) -> Tensor:
        return torch.tensor(2)

    def loss(self, name: str, module: nn.Module, batch: Tensor, step: int) -> tuple[Tensor, dict]:
        return (module(batch) ** 2).mean(), {}

    def after_step(self, step: int) -> dict[str, Tensor]:
        if step == STEPS:
            self.notes.write_text(json.dumps(private_bytes() - self.before))
        return {}

    def validate(self, step: int) -> dict[str, float]:
        return {"net/loss": 0.0}


def private_bytes() -> int:
    """Returns the memory that this process shares with no other."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Private_"))


def held(folder: Path, stage: int, ranks: int, layers: int) -> float:
    """Trains on forked ranks; returns the bytes of the fullest one."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(server.getsockname()[1])})
    children = []
    for rank in range(ranks):
        if (child := os.fork()) == 0:
            status = 1
            try:
                here = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
                os.environ.update({key: str(value) for key, value in here.items()})
                config = TrainingConfig(steps=STEPS, micro_batches=2, warmup_steps=1, zero_stage=stage)
                output = folder / f"{stage}_{ranks}"
                output.mkdir(exist_ok=True)
                train(Net(layers, output / f"rank_{rank}"), config, output, run_description={}, device="cpu")
                status = 0
            finally:
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children), f"stage {stage}, {ranks} ranks"
    return max(json.loads(path.read_text()) for path in folder.glob(f"{stage}_{ranks}/rank_*"))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", type=int, default=24, help="of a million weights each")
    options = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu", "CUDA_VISIBLE_DEVICES": ""}
    import deepspeed  # noqa: F401  (imported once, before the ranks are forked)

    weights = options.layers * WIDTH**2
    counts = Counts(all=weights, trained=weights, linear=weights, bucket=weights)
    print("| ZeRO stage | 1 rank, MB | 2 ranks, MB | estimate of 2 ranks, MB |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        for stage in STAGES:
            found = [held(Path(temporary), stage, ranks, options.layers) / 1e6 for ranks in (1, 2)]
            training = TrainingConfig(micro_batches=2, zero_stage=stage)
            expected = memory(counts, training, 2, stage, 0.0).gpu / 1e6
            print(f"| {stage} | {found[0]:.0f} | {found[1]:.0f} | {expected:.0f} |", flush=True)


if __name__ == "__main__":
    main()
