"""The training loop: what a step does, and the order of everything visible.

A run is: for every step, for every module of the task, every micro-batch's loss and gradient; one check that
they are finite; one update. Then the task's own buffers, the metrics, the validation and the checkpoint.
Batches and random numbers are functions of (seed, step, micro-batch), so the result does not depend on the
number of ranks, and a resumed run equals an uninterrupted one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from csm.system.files import write_atomically
from csm.system.host_memory import KeptMemory
from csm.system.log import log
from csm.training.batches import Batches
from csm.training.checkpoint import Checkpoints, checkpoint_bytes, require_space
from csm.training.checkpoint_reader import exported_weights, newest_checkpoint, newest_state
from csm.training.distributed import broken_collectives_in_one_line, start_distributed
from csm.training.engine import build_engines, trained_alone
from csm.training.memory_fit import PeakMemory, fit_memory, memory_errors_in_one_line
from csm.training.metric_logger import MetricLogger
from csm.training.options import TrainingConfig
from csm.training.plain_engine import Engine
from csm.training.reproducibility import seed_everything
from csm.training.run_folder import (
    StopRequest,
    is_complete,
    only_writer,
    require_same_run,
    require_writable,
    write_complete,
    write_run,
)
from csm.training.schedule import average_decay, learning_rate
from csm.training.task import Task
from csm.training.trackers import require_tracker
from csm.training.training_run import TrainingRun
from csm.training.validation import validate

# Takes the weights of every module and returns the files that it wrote of them.
Finish = Callable[[dict[str, dict[str, Tensor]]], list[Path]]


class NonFiniteError(FloatingPointError):
    """A loss or gradient was not finite; every rank stopped before the update."""


def train(
    task: Task,
    config: TrainingConfig,
    output: str | Path,
    *,
    run_description: dict[str, Any],
    device: str = "auto",
    inputs: Mapping[str, Any] | None = None,
    materials: Mapping[str, str] | None = None,
    finish: Finish | None = None,
) -> Path:
    """Trains `task`, or resumes its run, or finds it complete; returns the output folder.

    The folder then holds what `finish` wrote, `metrics.jsonl`, `run.json`, `checkpoints/`, what the tracker
    writes, and `samples/` of a task that makes some.

    Args:
        task: What is trained.
        config: Options of the run.
        output: Folder of the run.
        run_description: The resolved config of the run, as JSON values; a folder of another one is refused.
        device: "auto" (CUDA where there is a GPU), "cpu" or "cuda".
        inputs: Kept in run.json beside the config and not compared, as JSON values: what was read, and where.
        materials: SHA-256 of what is trained on, by name; a run resumes only on the same.
        finish: Writes the files of the finished run on rank 0 from each module's exported weights (the weight
            average where `ema_decay` is on); None writes `weights_<module>.safetensors`.

    Raises:
        ValueError: The folder belongs to another run, no checkpoint in it verifies, the disk or the memory is
            too small, or the tracker is not installed.
        NonFiniteError: A loss or gradient was not finite; nothing was updated or saved.
        SystemExit: With status 0, after SIGTERM or SIGINT, once the step and a checkpoint are done.
    """
    output = Path(output)
    require_writable(output)
    require_same_run(output, run_description, config, materials)
    require_tracker(config.tracker)
    if is_complete(output, config.steps):
        log.info("%s: this run is complete; nothing to do", output)
        return output
    distributed = start_distributed(device)
    memory = memory_errors_in_one_line(task, config, distributed)
    with only_writer(output, distributed), broken_collectives_in_one_line(), memory, ExitStack() as after:
        engines = build_engines(task.modules, config, distributed)
        for engine in engines.values():
            after.callback(engine.close)
        run = TrainingRun(task=task, config=config, output=output, distributed=distributed, engines=engines)
        step = resume(run)
        if distributed.rank == 0:
            write_run(output, run_description, config, distributed, step, inputs or {}, materials)
        require_space(output / "checkpoints", checkpoint_bytes(engines, distributed), distributed)
        # Until here there is nothing to save: a signal ends the process at once.
        with StopRequest(distributed) as stop:
            step = train_steps(run, step, stop)
        if step < config.steps:
            reason = stop.reason or "another rank"
            log.info("stopped after step %d by %s; the same command resumes", step, reason)
            raise SystemExit(0)
        export(run, step, finish or partial(write_weights, output))
    return output


def train_steps(run: TrainingRun, step: int, stop: StopRequest) -> int:
    """Runs the steps after `step` until the last one or a request to stop; returns the last step done."""
    task, config, distributed = run.task, run.config, run.distributed
    reports = MetricLogger(
        run.output, config, step, headline=task.headline, watched=task.watched, distributed=distributed
    )
    checkpoints = Checkpoints(
        run.output / "checkpoints", run.engines, distributed, keep=config.keep_checkpoints
    )
    memory, kept = PeakMemory(run.output.name, config.steps, distributed.device), KeptMemory()
    with reports, ExitStack() as ended:
        if step == 0:
            validate(run, 0, reports)
        if step < config.steps:
            fit_memory(run, step + 1)
        batches = ended.enter_context(closing(Batches(task, config, distributed)))
        while step < config.steps:
            step += 1
            try:
                optimizer_step(run, batches, step, checkpoints.before_update)
            except NonFiniteError:
                checkpoints.close()  # of an earlier step; all ranks are here
                raise
            if distributed.rank == 0:
                memory.look(step)
            last = step == config.steps
            if last or step % config.log_every == 0:
                report(run, step, reports)
                kept.look()
            if last or step % config.validate_every == 0:
                validate(run, step, reports)
            reports.show(step)
            stopping = distributed.any(bool(stop)) and not last
            if last or stopping or step % config.checkpoint_every == 0:
                checkpoints.begin(step, run.metrics.state())
            else:
                checkpoints.poll()
            if stopping:
                break
        checkpoints.close()
    return step


def resume(run: TrainingRun) -> int:
    """Loads the newest checkpoint that can be used; returns its step, or 0 where there is none."""
    found = newest_state(run.output / "checkpoints", run.engines, run.distributed)
    if found is None:
        return 0
    path, state = found
    state.load(run.engines)
    run.metrics.load(state.values, state.tensors, run.distributed.device)
    log.info("resuming after step %d from %s", state.step, path)
    return state.step


def report(run: TrainingRun, step: int, reports: MetricLogger) -> None:
    """Reports the means since the last report; every rank calls this."""
    values = run.metrics.means(run.distributed)
    frames = values.pop("frames", 0.0) * run.config.micro_batches
    reports.trained(step, values, learning_rate=learning_rate(run.config, step), frames=frames)


def optimizer_step(run: TrainingRun, batches: Batches, step: int, before_update: Callable[[], None]) -> None:
    """Runs one step: every module's losses, gradients, check and update, then the task's own buffers."""
    task, config = run.task, run.config
    micro_batches = batches.of(step)
    for batch in micro_batches.values():
        run.metrics.add("frames", task.frames(batch))
    for name, engine in run.engines.items():
        losses = module_losses(run, name, micro_batches, step)
        if not losses:
            continue
        gradients = engine.gradients()
        norm, bad = finite_gradient_norm(run, engine, gradients, losses)
        if bad or not math.isfinite(norm):
            raise_non_finite(run, step, name, bad)
        run.metrics.add(f"{name}/gradient_norm", torch.tensor(norm))
        clip(gradients, norm, config.clip)
        before_update()
        engine.step(learning_rate(config, step) * task.learning_rate_scales.get(name, 1.0))
        move_average(engine, config)
    seed_everything(config.seed, step, "after_step")
    for part, value in (task.after_step(step) or {}).items():
        run.metrics.add(part, value)


def module_losses(
    run: TrainingRun, name: str, micro_batches: Mapping[int, Any], step: int
) -> dict[int, Tensor]:
    """Accumulates one module's gradients over this rank's micro-batches; returns their losses.

    Empty where the module is not updated in this step.
    """
    losses: dict[int, Tensor] = {}
    engine = run.engines[name]
    for number, batch in micro_batches.items():
        seed_everything(run.config.seed, step, number, name)
        with trained_alone(run.engines, name):
            result = engine.forward(partial(micro_batch_loss, run, name, batch, step))
            if result is None:
                continue
            loss, parts = result
            engine.backward(loss)
        losses[number] = loss.detach()
        for part, value in {"loss": loss, **parts}.items():
            run.metrics.add(f"{name}/{part}", value)
    return losses


def micro_batch_loss(
    run: TrainingRun, name: str, batch: Any, step: int
) -> tuple[Tensor, dict[str, Tensor]] | None:
    """Returns one micro-batch's loss and its detached parts, in the arithmetic of `precision`."""
    with run.autocast():
        result = run.task.loss(name, run.task.modules[name], batch, step)
    if result is None:
        return None
    return result[0], {part: value.detach() for part, value in result[1].items()}


def finite_gradient_norm(
    run: TrainingRun, engine: Engine, gradients: list[Tensor], losses: Mapping[int, Tensor]
) -> tuple[float, list[int]]:
    """Returns the gradient's norm and the micro-batches whose loss is not finite, the same on every rank.

    One all-reduce and one synchronisation of the device. Each rank adds the squares of the gradient elements
    it owns after ZeRO's reduction, so an infinity anywhere reaches the sum on all ranks, before any update.
    """
    distributed = run.distributed
    reduced = torch.zeros(1 + run.config.micro_batches, dtype=torch.float64, device=distributed.device)
    if distributed.rank == 0 or not engine.replicated:
        # Summed in float64, so that the norm does not depend on how ZeRO partitions the gradient.
        reduced[0] = torch.stack(torch._foreach_norm(gradients, 2, dtype=torch.float64)).square().sum()
    for number, loss in losses.items():
        reduced[1 + number] = ~torch.isfinite(loss)
    squares, *flags = distributed.sum(reduced).tolist()
    bad = [number for number, flag in enumerate(flags) if flag]
    return math.sqrt(squares) if squares >= 0 else math.nan, bad


def raise_non_finite(run: TrainingRun, step: int, name: str, bad: list[int]) -> None:
    """Writes down which batches gave a loss or gradient that is not finite, and raises on this rank.

    Raises:
        NonFiniteError: Always.
    """
    numbers = bad or range(run.config.micro_batches)
    ids = {number: run.task.batch_ids(run.task.batch(step, number)) for number in numbers}
    what = "loss" if bad else "gradient"
    path = run.output / "nonfinite.json"
    if run.distributed.rank == 0:
        record = {"step": step, "module": name, "what": what, "batch_ids": ids}
        write_atomically(path, json.dumps(record, indent=2))
    raise NonFiniteError(
        f"step {step}: the {what} of {name} is not finite; no weight was updated and no checkpoint written. "
        f"Batch ids by micro-batch: {ids} (also in {path})"
    )


def clip(gradients: list[Tensor], norm: float, limit: float) -> None:
    """Scales the gradients so that their common norm is at most `limit` (0: leaves them)."""
    if limit and norm > limit:
        torch._foreach_mul_(gradients, limit / norm)


def move_average(engine: Engine, config: TrainingConfig) -> None:
    """Moves the weight average towards the weights; each rank averages the fragments it owns."""
    if config.ema_decay:
        slots = [fragment.slots for fragment in engine.fragments()]
        weight = 1 - average_decay(config.ema_decay, engine.updates)
        torch._foreach_lerp_([slot["average"] for slot in slots], [slot["weight"] for slot in slots], weight)


def export(run: TrainingRun, step: int, finish: Finish) -> None:
    """Finishes the run from its last checkpoint and marks it as complete."""
    found = newest_checkpoint(run.output / "checkpoints", run.distributed)
    assert found is not None and found.name.endswith(f"{step:08d}"), f"no checkpoint of step {step}"
    if run.distributed.rank == 0:
        weights = {name: exported_weights(found, name, engine) for name, engine in run.engines.items()}
        write_complete(run.output, step, finish(weights))
    run.distributed.barrier()


def write_weights(output: Path, weights: dict[str, dict[str, Tensor]]) -> list[Path]:
    """Writes `weights_<module>.safetensors` of each module; returns their paths."""
    paths = [output / f"weights_{name}.safetensors" for name in weights]
    for path, state in zip(paths, weights.values(), strict=True):
        write_atomically(path, to_bytes(state))
    return paths
