"""Loss curves of float8 products beside those of bf16: the check to make before a long run uses them.

    python benchmarks/float8_losses.py --recipe research --codes runs/research/codes --steps 200

Three trainings of the recipe on the same batches in the same order, in bf16: `bf16`; `float8`, from the same
weights with execution.float8; and `bf16, other seed`, from other weights and with other dropout, the control.
Printed are the means of stretches of steps, and of the last quarter the mean relative difference from `bf16`,
steps paired. The verdict is *equal* where float8's loss is at most --bound above; *undecided* where that of
the control differs by more than the bound, so that chance alone may be as large: take more steps; else
*worse*.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from csm.cli.options import add_recipe, device_of, resolved_recipe
from csm.data.code_companions import read_code_vectors
from csm.data.code_shards import read_code_shards
from csm.network.code_embedding_init import start_from_code_vectors
from csm.network.execution import ExecutionConfig, apply_execution
from csm.recipes.run_config import RunConfig
from csm.recipes.steps.train_model import model_task, start_model
from csm.recipes.steps.turn_tables import training_tables
from csm.research.trainings import with_seed, with_steps
from csm.training.batches import Batches
from csm.training.distributed import DistributedContext
from csm.training.loop import optimizer_step
from csm.training.model_task import ModelTask
from csm.training.plain_engine import PlainEngine
from csm.training.training_run import TrainingRun

STRETCHES = 8


def task_of(run: RunConfig, codes: Path, device: torch.device, *, start: int | None = None) -> ModelTask:
    """Returns what `csm train` would train on.

    Args:
        run, codes, device: Recipe, folder of the codes, and where validation would run.
        start: Seed of the initial weights; None: the recipe's.
    """
    encoded = read_code_shards(codes)
    model = start_model(run if start is None else with_seed(run, start))
    alone = DistributedContext(rank=0, size=1, local_size=1, device=device)
    tables = training_tables(run, codes, encoded, model, alone)
    vectors = read_code_vectors(codes)
    if run.model_start == "scratch" and vectors is not None:
        start_from_code_vectors(model, vectors)
    return model_task(run, model, tables, vectors, device)


def losses(
    run: RunConfig, codes: Path, device: torch.device, *, float8: bool, start: int, part: str = "loss"
) -> list[float]:
    """Trains by the recipe's steps; returns the loss of each.

    Args:
        run, codes, device: Recipe, folder of the codes, and where to train.
        float8: Whether products run in float8.
        start: Seed of weights and dropout; the order of batches is that of the recipe's own.
        part: Name of a part of the loss, before its weight; "loss": the weighted whole.
    """
    task = task_of(run, codes, device, start=start)
    apply_execution(task.model, ExecutionConfig(float8=float8), zero_stage=0, device=device)
    alone = DistributedContext(rank=0, size=1, local_size=1, device=device)
    training = with_seed(run, start).training
    engine = PlainEngine("model", task.model.to(device).train(), training, alone)
    engines = {"model": engine}
    found = TrainingRun(task=task, config=training, output=Path(), distributed=alone, engines=engines)
    batches = Batches(task, training, alone)
    curve = []
    for step in range(1, training.steps + 1):
        optimizer_step(found, batches, step, lambda: None)
        curve.append(found.metrics.means(alone)[f"model/{part}"])
    batches.close()
    return curve


def difference(curve: list[float], beside: list[float]) -> float:
    """Returns the mean relative difference of the last quarter of two curves, steps paired."""
    pairs = list(zip(curve, beside, strict=True))[-max(1, len(curve) // 4) :]
    return sum((a - b) / abs(b) for a, b in pairs) / len(pairs)


def verdict(found: float, control: float, bound: float) -> str:
    """Returns "equal", "undecided" or "worse" for float8's difference and the control's."""
    if found <= bound:
        return "equal"
    return "undecided" if abs(control) > bound else "worse"


def table(curves: dict[str, list[float]]) -> list[str]:
    """Returns a Markdown table of the mean losses of STRETCHES stretches of steps."""
    steps = len(next(iter(curves.values())))
    edges = [steps * place // STRETCHES for place in range(STRETCHES + 1)]
    lines = ["| steps | " + " | ".join(curves) + " |", "|---" * (len(curves) + 1) + "|"]
    for first, last in zip(edges, edges[1:], strict=False):
        if last > first:
            means = (sum(curve[first:last]) / (last - first) for curve in curves.values())
            lines.append(f"| {first + 1} to {last} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_recipe(parser)
    parser.add_argument("--codes", type=Path, required=True, metavar="FOLDER", help="folder of the codes")
    parser.add_argument("--steps", type=int, default=200, help="steps of each training (default: 200)")
    parser.add_argument(
        "--part", default="loss", help="part of the loss, such as codebook0 (default: the weighted whole)"
    )
    parser.add_argument("--bound", type=float, default=0.01, help="largest difference (default: 0.01)")
    options = parser.parse_args()
    run = with_steps(resolved_recipe(options), options.steps)
    run = replace(run, training=replace(run.training, precision="bf16"))
    device, seed = device_of(options), run.training.seed
    curves, arms = {}, {"bf16": (False, seed), "float8": (True, seed), "bf16, other seed": (False, seed + 1)}
    for name, (float8, start) in arms.items():
        began = time.perf_counter()
        chosen = {"float8": float8, "start": start, "part": options.part}
        curves[name] = losses(run, options.codes, device, **chosen)
        print(f"{name}: {options.steps} steps in {time.perf_counter() - began:.0f} s", flush=True)
    print("\n".join(table(curves)))
    found, control = (difference(curves[name], curves["bf16"]) for name in ("float8", "bf16, other seed"))
    print(f"last quarter: float8 {found:+.4f}, control {control:+.4f}, bound {options.bound}")
    print(f"verdict: {verdict(found, control, options.bound)}")


if __name__ == "__main__":
    main()
