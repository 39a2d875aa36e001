"""Step 7: real training steps (csm.training.loop) of made-up rows at two sizes.

Made up are the corpus and its texts alone: model, losses, engine, check of gradients, clipping and update are
those of `csm train`.
"""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from bare import NO_DEVICE, Rows, begin

STEPS = 20
SYNCHRONISATIONS = 1  # of a step: the check of the gradients' norm
SIZES = {
    "256 x 6, 1,100 rows": ({"d_model": 256, "n_layers": 6, "n_heads": 4, "num_codebooks": 16}, 8),
    "768 x 12, 4,400 rows": ({"d_model": 768, "n_layers": 12, "n_heads": 12, "num_codebooks": 32}, 32),
}
SMALL_SIZES = {"d_model": 32, "n_layers": 2, "n_heads": 2, "num_codebooks": 4, "semantic_codebooks": 2}
SMALL = {"32 x 2": (SMALL_SIZES, 2)}


class MadeUpTask:
    """The Task of the training loop for random turns; batches are functions of (step, micro-batch)."""

    headline, watched = ("model/loss",), "model/loss"
    learning_rate_scales = {"model": 1.0}

    def __init__(self, model: Any, turns: int) -> None:
        from csm.losses import LossConfig

        self.model, self.turns, self.weights, self.vectors = model, turns, LossConfig(), None
        self.modules = {"model": model}
        self.budget: Any = None

    def batch(self, step: int, micro_batch: int) -> Any:
        rows = made_up_rows(self.model, self.turns, seed=100 * step + micro_batch)
        if self.budget is None:
            return rows
        from csm.network.fixed_shapes import padded

        return padded(rows, self.model.config, self.budget)

    def fix_shapes(self) -> None:
        """Pads all batches to one size from now on."""
        from csm.network.fixed_shapes import RowBudget

        rows = made_up_rows(self.model, self.turns, seed=0)
        made, context = [(rows, rows.layout)], self.model.config.max_context
        self.budget = RowBudget.of(made, rows=len(rows.text), max_context=context)

    def batch_ids(self, batch: Any) -> list[str]:
        return batch.ids

    def frames(self, batch: Any) -> torch.Tensor:
        from csm.training.model_task import ModelTask

        return ModelTask.frames(self, batch)  # type: ignore[arg-type]

    def loss(self, name: str, module: Any, batch: Any, step: int) -> Any:
        from csm.training.model_task import ModelTask

        return ModelTask._loss(self, module, batch)  # type: ignore[arg-type]

    def after_step(self, step: int) -> None:
        """No buffers."""


def made_up_rows(model: Any, turns: int, seed: int) -> Any:
    """Returns a batch of turns of 60 to 130 frames, each after one past turn; every fourth is transcribed."""
    from csm.sequences.turns import TurnFrames

    generator = torch.Generator().manual_seed(seed)
    rows, books = model.new_rows(), model.config.num_codebooks
    text = "I had a plane to catch, and no time."
    ids = len(model.codec.encode_turn(text, 0))

    def codes(frames: int) -> torch.Tensor:
        return torch.randint(0, model.config.codebook_size, (books, frames), generator=generator)

    for index in range(turns):
        rows.begin_sequence([TurnFrames("past", "What is it?", 0, codes(40))])
        frames = 60 + 10 * (index % 8)
        prosody, ends = torch.zeros(frames, 3), torch.linspace(frames / ids, frames, ids)
        turn = TurnFrames(f"turn {index}", text, 0, codes(frames), prosody, ends)
        (rows.add_transcribed if index % 4 == 3 else rows.add_spoken)(turn)
    return model.with_layout(rows.build())


def started(
    sizes: dict[str, Any],
    turns: int,
    device: torch.device,
    steps: int,
    execution: dict[str, Any] | None = None,
) -> Any:
    """Returns a new run, with these fields of ExecutionConfig, and its batches."""
    from csm.model import CSMModel
    from csm.network.execution import ExecutionConfig, apply_execution
    from csm.network.model_config import CSMConfig
    from csm.training.batches import Batches
    from csm.training.distributed import DistributedContext
    from csm.training.options import TrainingConfig
    from csm.training.plain_engine import PlainEngine
    from csm.training.training_run import TrainingRun

    torch.manual_seed(0)
    model = CSMModel(CSMConfig(text="bytes", **sizes)).to(device).train()
    chosen = ExecutionConfig(**(execution or {}))
    apply_execution(model, chosen, zero_stage=0, device=device)
    task = MadeUpTask(model, turns)
    if chosen.fixed_shapes:
        task.fix_shapes()
    config = TrainingConfig(steps=steps, micro_batches=1, warmup_steps=2, precision="bf16", zero_stage=0)
    distributed = DistributedContext(rank=0, size=1, local_size=1, device=device)
    engines = {"model": PlainEngine("model", model, config, distributed)}
    run = TrainingRun(task=task, config=config, output=Path("."), distributed=distributed, engines=engines)
    return SimpleNamespace(run=run, batches=Batches(task, config, distributed))


def trained(
    sizes: dict[str, Any],
    turns: int,
    device: torch.device,
    steps: int,
    execution: dict[str, Any] | None = None,
) -> tuple[list[float], float]:
    """Returns the loss after each step and the median milliseconds of the second half."""
    from csm.training.loop import optimizer_step

    training = started(sizes, turns, device, steps, execution)
    times, losses = [], []
    for step in range(1, steps + 1):
        start = time.perf_counter()
        optimizer_step(training.run, training.batches, step, lambda: None)
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - start))
        losses.append(training.run.metrics.sums["model/loss"])
    ordered = sorted(times[steps // 2 :])
    return torch.stack(losses).tolist(), ordered[len(ordered) // 2]


def synchronisations(sizes: dict[str, Any], turns: int, device: torch.device) -> list[str]:
    """Returns where one step, after two others, waits for the device."""
    from csm.training.loop import optimizer_step

    training = started(sizes, turns, device, 4)
    for step in (1, 2):
        optimizer_step(training.run, training.batches, step, lambda: None)
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        optimizer_step(training.run, training.batches, 3, lambda: None)
        torch.cuda.set_sync_debug_mode("default")
    return [f"{Path(w.filename).name}:{w.lineno}" for w in caught if "synchroniz" in str(w.message)]


def profiled(
    sizes: dict[str, Any], turns: int, device: torch.device, execution: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Returns the device's busy share and the launches of a step; prints the kernels that take most."""
    from torch.profiler import ProfilerActivity, profile

    from csm.training.loop import optimizer_step

    training = started(sizes, turns, device, 8, execution)
    for step in (1, 2, 3):
        optimizer_step(training.run, training.batches, step, lambda: None)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as found:
        start = time.perf_counter()
        for step in (4, 5, 6):
            optimizer_step(training.run, training.batches, step, lambda: None)
        torch.cuda.synchronize()
        wall = 1e6 * (time.perf_counter() - start)
    events = [e for e in found.key_averages() if e.self_device_time_total and not e.key.startswith("aten::")]
    busy = sum(event.self_device_time_total for event in events)
    launches = sum(e.count for e in found.key_averages() if "LaunchKernel" in e.key) / 3
    top = sorted(events, key=lambda event: -event.self_device_time_total)[:12]
    shares = {event.key[:60]: round(event.self_device_time_total / max(busy, 1), 3) for event in top}
    print("\n".join(f"{share:6.3f} {name}" for name, share in shares.items()))
    return {"busy_share": busy / wall, "launches": launches}


def measure(rows: Rows, name: str, shape: tuple[dict[str, Any], int], device: torch.device) -> None:
    """Trains twice at one size, and on a GPU measures a step."""
    sizes, turns = shape
    steps = STEPS if device.type == "cuda" else 3
    losses, ms = trained(sizes, turns, device, steps)
    again, _ = trained(sizes, turns, device, steps)
    rows.add(f"two runs have equal losses, {name}", gate=losses == again)
    if device.type != "cuda":
        return
    row: dict[str, Any] = {"ms": ms, "gigabytes_peak": torch.cuda.max_memory_allocated() / 1e9}
    torch.cuda.reset_peak_memory_stats()
    waits = synchronisations(sizes, turns, device)
    rows.add(
        f"a step waits at most {SYNCHRONISATIONS} time for the device, {name}",
        gate=len(waits) <= SYNCHRONISATIONS,
        synchronisations=len(waits),
        where=", ".join(sorted(set(waits))),
    )
    rows.add(f"training step, {name}", **row, **profiled(sizes, turns, device))


def main() -> None:
    rows, device, _ = begin()
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)  # as csm.training.distributed does
    for name, shape in (SIZES if device.type == "cuda" else SMALL).items():
        measure(rows, name, shape, device)
    if device.type != "cuda":
        rows.skip("times, synchronisations, memory", NO_DEVICE)


if __name__ == "__main__":
    main()
