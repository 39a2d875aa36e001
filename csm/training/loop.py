"""One training step, the order of everything visible.

A run is: for every step, for every module of the task, every shard's loss and gradient; one vote; one update.
Then the task's own buffers, the metrics, the validation and the checkpoint. Batches and random numbers are
functions of (seed, step, shard), so the result does not depend on the number of ranks, and a resumed run
equals an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor, nn

from csm.training.checkpoint import (
    checkpoint_bytes,
    exported_weights,
    load_checkpoint,
    newest_checkpoint,
    require_space,
    save_checkpoint,
    write_atomically,
)
from csm.training.engine import Engine, build_engines, trained_alone
from csm.training.metrics import Report, Window
from csm.training.options import TrainingConfig
from csm.training.reproducibility import seed_everything
from csm.training.run_folder import (
    StopRequest,
    is_complete,
    only_writer,
    require_same_run,
    write_complete,
    write_run,
)
from csm.training.samples import Audible, Clips, write_samples
from csm.training.schedule import average_decay, learning_rate
from csm.training.world import World, start_world


class Task(Protocol):
    """What is trained. Steps count from 1; shards from 0 to `TrainingConfig.shards` - 1.

    One that can be listened to has the methods of `csm.training.samples.Audible` too.

    Attributes:
        modules: the modules in the order of their updates; same initial weights on every rank.
        learning_rate_scales: a factor on the learning rate per module; a module left out has 1.
    """

    modules: dict[str, nn.Module]
    learning_rate_scales: dict[str, float]

    def batch(self, step: int, shard: int) -> Any:
        """Return one micro-batch, on the CPU: a pure function of (seed, step, shard).

        It must not draw from the global random generators. Tensors, dicts of them and anything with `.to`
        are moved to the device.
        """
        ...

    def batch_ids(self, batch: Any) -> list[str]:
        """Name the batch's items, for the message when a loss is not finite."""
        ...

    def loss(self, name: str, module: Any, batch: Any, step: int) -> tuple[Tensor, dict[str, Tensor]] | None:
        """Return (loss, named parts) of one shard; the step's loss is the mean over shards.

        `module` is `modules[name]`; call it in any way. The parameters of the other modules are frozen
        meanwhile. None, on every shard alike, means that this module is not updated in this step.
        """
        ...

    def after_step(self, step: int) -> dict[str, Tensor] | None:
        """Update buffers once per step, on every rank (any communication is the task's); return metrics."""
        ...

    def validate(self, step: int) -> dict[str, float]:
        """Return validation metrics; modules are in eval mode, without gradients.

        Called on rank 0 while the others wait; under ZeRO-3 on every rank, so it must not write files.
        """
        ...


class NonFiniteError(FloatingPointError):
    """A loss or gradient was not finite; every rank stopped before the update."""


def train(
    task: Task,
    config: TrainingConfig,
    output: str | Path,
    *,
    run_description: dict[str, Any],
    device: str = "auto",
) -> Path:
    """Train `task`, or resume it, or find it complete; return the output folder.

    The folder then holds `weights_<module>.safetensors` (the weight average where `ema_decay` is on),
    `metrics.jsonl`, `run.json`, `checkpoints/`, with TensorBoard installed `tensorboard/` and, of a task that
    can be listened to, `samples/`.

    Args:
        run_description: the resolved config of the run, as JSON values; a folder of another one is refused.
        device: "auto" (CUDA where there is a GPU), "cpu" or "cuda".

    Raises:
        ValueError: the folder belongs to another run, no checkpoint in it verifies, or the disk is too small.
        NonFiniteError: a loss or gradient was not finite; nothing was updated or saved.
        SystemExit: with status 0, after SIGTERM or SIGINT, once the step and a checkpoint are done.
    """
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    require_same_run(output, run_description, config)
    if is_complete(output):
        say(int(os.environ.get("RANK", 0)) == 0, f"{output}: this run is complete; nothing to do")
        return output
    world = start_world(device)
    with only_writer(output, world), StopRequest(world) as stop:
        engines = build_engines(task.modules, config, world)
        window = Window()
        step = resume(output, engines, window, world)
        if world.rank == 0:
            write_run(output, run_description, config, world, step)
        require_space(output / "checkpoints", checkpoint_bytes(engines, world), world)
        with Report(output, config.steps, step, shown=world.rank == 0) as report:
            batches = Batches(task, config, world)
            while step < config.steps:
                step += 1
                optimizer_step(task, engines, batches, config, world, window, output, step)
                last = step == config.steps
                if last or step % config.log_every == 0:
                    report.write(step, "train", window.means(world))
                if last or step % config.validate_every == 0:
                    values, clips = validation(task, engines, config, world, step)
                    report.write(step, "validation", values)
                    keep_samples(task, output, step, clips, world)
                stopping = world.any(bool(stop)) and not last
                if last or stopping or step % config.checkpoint_every == 0:
                    folder = output / "checkpoints"
                    save_checkpoint(
                        folder, step, engines, world, keep=config.keep_checkpoints, extra=window.state()
                    )
                report.advance()
                if stopping:
                    break
        if step < config.steps:
            say(
                world.rank == 0,
                f"stopped after step {step} by {stop.reason or 'another rank'}; the same command resumes",
            )
            raise SystemExit(0)
        export(output, engines, world, step)
    return output


def resume(output: Path, engines: dict[str, Engine], window: Window, world: World) -> int:
    """Load the newest checkpoint that verifies; return its step, or 0 where there is none."""
    checkpoint = newest_checkpoint(output / "checkpoints", world)
    if checkpoint is None:
        return 0
    step, values, tensors = load_checkpoint(checkpoint, engines, world)
    window.load(values, tensors, world.device)
    say(world.rank == 0, f"resuming after step {step} from {checkpoint}")
    return step


def optimizer_step(
    task: Task,
    engines: dict[str, Engine],
    batches: Batches,
    config: TrainingConfig,
    world: World,
    window: Window,
    output: Path,
    step: int,
) -> None:
    """Run one step: every module's losses, gradients, vote and update, then the task's own buffers."""
    shards = batches.of(step)
    for name, engine in engines.items():
        losses: dict[int, Tensor] = {}
        for shard, batch in shards.items():
            seed_everything(config.seed, step, shard, name)
            with trained_alone(engines, name):
                result = engine.forward(partial(shard_loss, task, name, batch, config, world, step))
                if result is None:
                    continue
                loss, parts = result
                engine.backward(loss)
            losses[shard] = loss.detach()
            for part, value in {"loss": loss, **parts}.items():
                window.add(f"{name}/{part}", value)
        if not losses:
            continue
        gradients = engine.gradients()
        norm, bad_shards = vote(engine, gradients, losses, config, world)
        if bad_shards or not math.isfinite(norm):
            stop_before_update(task, config, world, output, step, name, bad_shards)
        window.add(f"{name}/gradient_norm", torch.tensor(norm))
        clip(gradients, norm, config.clip)
        engine.step(learning_rate(config, step) * task.learning_rate_scales.get(name, 1.0))
        move_average(engine, config)
    seed_everything(config.seed, step, "after_step")
    for part, value in (task.after_step(step) or {}).items():
        window.add(part, value)


def shard_loss(
    task: Task, name: str, batch: Any, config: TrainingConfig, world: World, step: int
) -> tuple[Tensor, dict[str, Tensor]] | None:
    """Return one shard's loss and its detached parts, in the arithmetic of `precision`."""
    with autocast(config, world):
        result = task.loss(name, task.modules[name], batch, step)
    if result is None:
        return None
    return result[0], {part: value.detach() for part, value in result[1].items()}


def vote(
    engine: Engine, gradients: list[Tensor], losses: dict[int, Tensor], config: TrainingConfig, world: World
) -> tuple[float, list[int]]:
    """Return the gradient's norm and the shards with a loss that is not finite, the same on every rank.

    One all-reduce and one synchronisation of the device. Each rank adds the squares of the gradient elements
    it owns after ZeRO's reduction, so an infinity anywhere reaches the sum on all ranks, before any update.
    """
    ballot = torch.zeros(1 + config.shards, dtype=torch.float64, device=world.device)
    if world.rank == 0 or not engine.replicated:
        # Summed in float64: the same norm to the last bit of fp32, however ZeRO cuts the pieces.
        ballot[0] = torch.stack(torch._foreach_norm(gradients, 2, dtype=torch.float64)).square().sum()
    for shard, loss in losses.items():
        ballot[1 + shard] = ~torch.isfinite(loss)
    squares, *bad = world.sum(ballot).tolist()
    return math.sqrt(squares) if squares >= 0 else math.nan, [shard for shard, flag in enumerate(bad) if flag]


def stop_before_update(
    task: Task,
    config: TrainingConfig,
    world: World,
    output: Path,
    step: int,
    name: str,
    bad_shards: list[int],
) -> None:
    """Write down which batches gave a loss or gradient that is not finite, and stop this rank."""
    ids = {shard: task.batch_ids(task.batch(step, shard)) for shard in bad_shards or range(config.shards)}
    what = "loss" if bad_shards else "gradient"
    if world.rank == 0:
        record = {"step": step, "module": name, "what": what, "batch_ids": ids}
        write_atomically(output / "nonfinite.json", json.dumps(record, indent=2).encode())
    raise NonFiniteError(
        f"step {step}: the {what} of {name} is not finite; no weight was updated and no checkpoint written. "
        f"Batch ids by shard: {ids} (also in {output / 'nonfinite.json'})"
    )


def clip(gradients: list[Tensor], norm: float, limit: float) -> None:
    """Scale the gradients so that their common norm is at most `limit` (0: leave them)."""
    if limit and norm > limit:
        torch._foreach_mul_(gradients, limit / norm)


def move_average(engine: Engine, config: TrainingConfig) -> None:
    """Move the weight average towards the weights; each rank averages the fragments it owns."""
    if config.ema_decay:
        slots = [fragment.slots for fragment in engine.fragments()]
        weight = 1 - average_decay(config.ema_decay, engine.updates)
        torch._foreach_lerp_([slot["average"] for slot in slots], [slot["weight"] for slot in slots], weight)


@torch.no_grad()
def validation(
    task: Task, engines: dict[str, Engine], config: TrainingConfig, world: World, step: int
) -> tuple[dict[str, float], Clips]:
    """Validate on rank 0 while the others wait; leave every module in training mode.

    Returns:
        The metrics, and clips to listen to where the task makes some.
    """
    values: dict[str, float] = {}
    clips: Clips = {}
    if world.rank == 0 or any(engine.partitioned_weights for engine in engines.values()):
        seed_everything(config.seed, step, "validation")
        for module in task.modules.values():
            module.eval()
        with autocast(config, world):
            validate: Callable[[], Any] = partial(validated, task, step)
            for engine in engines.values():
                if engine.partitioned_weights:
                    # Only inside a forward of theirs does ZeRO-3 gather what is read.
                    validate = partial(engine.forward, validate)
            values, clips = validate()
        for module in task.modules.values():
            module.train()
    world.barrier()
    return values, clips


def validated(task: Task, step: int) -> tuple[dict[str, float], Clips]:
    """Return the task's validation metrics and clips."""
    return task.validate(step), task.samples(step) if isinstance(task, Audible) else {}


def keep_samples(task: Task, output: Path, step: int, clips: Clips, world: World) -> None:
    """Write the clips on rank 0; what goes wrong is said and costs the training nothing."""
    if world.rank != 0 or not isinstance(task, Audible):
        return
    try:
        write_samples(output, step, clips, task.originals())
    except (OSError, ValueError) as error:
        say(True, f"the samples of step {step} are not written: {error}")


def export(output: Path, engines: dict[str, Engine], world: World, step: int) -> None:
    """Write each module's weights from the last checkpoint and mark the run as complete."""
    checkpoint = newest_checkpoint(output / "checkpoints", world)
    assert checkpoint is not None and checkpoint.name.endswith(f"{step:08d}"), f"no checkpoint of step {step}"
    if world.rank == 0:
        paths = [output / f"weights_{name}.safetensors" for name in engines]
        for path, (name, engine) in zip(paths, engines.items(), strict=True):
            write_atomically(path, to_bytes(exported_weights(checkpoint, name, engine)))
        write_complete(output, step, paths)
    world.barrier()


class Batches:
    """The batches of this rank's shards; on a GPU the next step's are made while this one runs."""

    def __init__(self, task: Task, config: TrainingConfig, world: World) -> None:
        self.task, self.steps, self.device = task, config.steps, world.device
        self.shards = range(world.rank, config.shards, world.size)
        self.pool = ThreadPoolExecutor(1) if world.device.type == "cuda" else None
        self.ahead: dict[int, Future[dict[int, Any]]] = {}

    def of(self, step: int) -> dict[int, Any]:
        """Return {shard: batch} of a step, on the device."""
        made = self.ahead.pop(step).result() if step in self.ahead else self._make(step)
        if self.pool is not None and step < self.steps:
            self.ahead[step + 1] = self.pool.submit(self._make, step + 1)
        return {shard: on_device(batch, self.device) for shard, batch in made.items()}

    def _make(self, step: int) -> dict[int, Any]:
        return {shard: self.task.batch(step, shard) for shard in self.shards}


def autocast(config: TrainingConfig, world: World) -> torch.autocast:
    """bfloat16 arithmetic over fp32 weights where `precision` asks for it."""
    return torch.autocast(world.device.type, torch.bfloat16, enabled=config.precision == "bf16")


def on_device(batch: Any, device: torch.device) -> Any:
    """Move a batch to the device: tensors, dicts, lists and tuples of them, and anything with `.to`."""
    if isinstance(batch, dict):
        return {key: on_device(value, device) for key, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return type(batch)(on_device(value, device) for value in batch)
    return batch.to(device) if hasattr(batch, "to") else batch


def say(shown: bool, text: str) -> None:
    """Print one line on the rank that shows anything."""
    if shown:
        print(text, file=sys.stderr, flush=True)
