"""What a checkpoint costs a training: how long a step waits for it, and how long saving takes.

python benchmarks/checkpoint_cost.py [--gigabytes 1] [--folder FOLDER]

The plain engine on the CPU, on the disk of FOLDER (the system's temporary one by default). Five saves with
computing steps between them; the first, which takes memory for the copy, stands by itself. "Steps wait" is
the time in `begin`, `before_update` and `poll`; "saved at once" is `save_checkpoint`, which waits for the
disk. Needs twice as many gigabytes of memory and disk.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from csm.training.checkpoint import Checkpoints, save_checkpoint
from csm.training.distributed import DistributedContext
from csm.training.options import TrainingConfig
from csm.training.plain_engine import Engine, PlainEngine

ALONE = DistributedContext(rank=0, size=1, local_size=1, device=torch.device("cpu"))
SAVES, STEPS_BETWEEN = 5, 5
WIDTH = 1024


def timed(action: Callable[[], object]) -> float:
    """Returns the seconds that an action takes."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def compute() -> float:
    """Runs about as much as a step computes; returns its seconds."""
    rows = torch.ones(256, WIDTH)
    matrix = torch.full((WIDTH, WIDTH), 1.0 / WIDTH)

    def products() -> None:
        x = rows
        for _ in range(40):
            x = x @ matrix

    return timed(products)


def beside_steps(folder: Path, engines: dict[str, Engine]) -> tuple[list[float], list[float]]:
    """Returns for each save the seconds that steps waited, and all seconds of steps while it was written."""
    checkpoints = Checkpoints(folder, engines, ALONE, keep=1)
    waited, computed = [], []
    for step in range(1, SAVES + 1):
        spent = timed(lambda step=step: checkpoints.begin(step))
        during: list[float] = []
        while not (folder / f"step_{step:08d}").is_dir():
            during.append(compute())
            spent += timed(checkpoints.before_update) + timed(checkpoints.poll)
        for _ in range(STEPS_BETWEEN):
            compute()
        waited.append(spent)
        computed.append(sum(during) / max(1, len(during)))
    return waited, computed


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    layers = round(options.gigabytes * 1e9 / (12 * WIDTH * WIDTH))  # weights and two moments, 4 bytes each
    modules = nn.Sequential(*(nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(layers)))
    engines: dict[str, Engine] = {"net": PlainEngine("net", modules, TrainingConfig(micro_batches=1), ALONE)}
    alone = sorted(compute() for _ in range(15))[7]
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        waited, computed = beside_steps(folder / "beside", engines)
        at_once = [
            timed(lambda step=step: save_checkpoint(folder / "at_once", step, engines, ALONE, keep=1))
            for step in range(1, SAVES + 1)
        ]
    median, best = sorted(waited[1:])[(SAVES - 1) // 2], sorted(at_once)[SAVES // 2]
    print("| | seconds |\n|---|---|")
    print(f"| saved at once, median of {SAVES} | {best:.2f} |")
    print(f"| steps wait, first save | {waited[0]:.3f} |")
    print(f"| steps wait, median of the others | {median:.3f} ({100 * median / best:.1f} %) |")
    print(f"| a step's arithmetic, alone | {alone:.3f} |")
    print(f"| a step's arithmetic, while files are written | {sorted(computed)[SAVES // 2]:.3f} |")


if __name__ == "__main__":
    main()
