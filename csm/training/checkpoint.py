"""Checkpoints that are written whole or not at all, verified before they are read, and exact.

    checkpoints/step_00000200/
        rank_00000.safetensors   the fragments this rank owns: weights, moments, averages; rank 0 adds buffers
        rank_00000.json          where each fragment lies, random states, updates, open metrics
        MANIFEST.json            size and SHA-256 of every file
    checkpoints/latest           the name of the newest, for people and scripts; the loader looks for itself

A checkpoint is written into `step_N.tmp-*` beside the steps that follow, flushed to disk, read back, renamed;
until then the one before is the newest. Nothing is ever unpickled. Fragments carry their place in the whole
parameter, so any number of ranks and any ZeRO stage can load any checkpoint.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csm.system.files import flush, remove_leftovers, write_atomically
from csm.training.checkpoint_reader import FORMAT, STEP
from csm.training.checkpoint_shard import Entries, HostCopy, ShardWriter, write_flushed
from csm.training.distributed import DistributedContext
from csm.training.plain_engine import Engine, Fragment
from csm.training.reproducibility import random_state


@dataclass(frozen=True, kw_only=True)
class _Pending:
    """A checkpoint whose files are being written."""

    step: int
    target: Path
    temporary: Path
    writer: ShardWriter


class Checkpoints:
    """Saves a run's checkpoints, one at a time, whose files are written while the training continues.

    Every rank calls each method at the same place. The state is copied into the host's memory while the next
    step computes its gradients; its update waits for the rest of the copy (`before_update`). Once all ranks
    have written their files, a step waits for a manifest and a rename.

    Args:
        folder: The run's `checkpoints` folder.
        engines, distributed: Those of the run.
        keep: How many of the newest stay.
    """

    def __init__(
        self, folder: Path, engines: dict[str, Engine], distributed: DistributedContext, *, keep: int
    ) -> None:
        self.folder, self.engines, self.distributed, self.keep = folder, engines, distributed, keep
        self._copy = HostCopy()
        self._deletion = threading.Thread(target=_delete, args=([],))
        self._deletion.start()
        self._pending: _Pending | None = None

    def begin(self, step: int, extra: tuple[dict[str, Any], dict[str, Tensor]] = ({}, {})) -> None:
        """Begins to copy and write the state after `step`; first finishes the checkpoint before.

        Until `before_update`, `finish` or `close` returns, weights and moments must not change. Buffers and
        `extra` may: they are copied at once.

        Args:
            step: The step.
            extra: This rank's further JSON values and tensors; `read_checkpoint` returns them to it.

        Raises:
            ValueError: Too little disk space or a failed write; older checkpoints stay and nothing
                half-written remains.
        """
        self.close()
        folder, distributed = self.folder, self.distributed
        values, tensors = _collect(step, self.engines, distributed, extra)
        require_space(folder, sum(tensor.nbytes for tensor in tensors.values()), distributed)
        target = folder / f"step_{step:08d}"
        temporary = folder / f"{target.name}.tmp-{distributed.from_first(secrets.randbits(31)):08x}"
        _on_first(distributed, target, lambda: _start(folder, temporary))
        text = json.dumps(values).encode()
        writer = ShardWriter(temporary, distributed.rank, text, tensors, self._copy)
        self._pending = _Pending(step=step, target=target, temporary=temporary, writer=writer)

    def before_update(self) -> None:
        """Waits until weights and moments may be changed."""
        if self._pending is not None:
            self._pending.writer.wait_for_copy()

    def poll(self) -> None:
        """Finishes the checkpoint that is being written, if every rank has written its files.

        Raises:
            ValueError: As `begin`.
        """
        if self._pending is not None and not self.distributed.any(not self._pending.writer.done):
            self.finish()

    def finish(self) -> None:
        """Waits for the checkpoint that is being written, publishes it and drops all but the newest.

        Raises:
            ValueError: As `begin`.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        distributed, target, temporary = self.distributed, pending.target, pending.temporary
        problem, entries = None, {}
        try:
            entries = pending.writer.wait()
        except OSError as error:
            free = shutil.disk_usage(self.folder).free
            problem = f"{error}; rank {distributed.rank} needs {pending.writer.nbytes} bytes, {free} are free"
        if distributed.any(problem is not None):
            _on_first(distributed, target, lambda: shutil.rmtree(temporary, ignore_errors=True))
            raise _failed(target, problem or "another rank could not write its part")
        manifest = _gather_entries(entries, distributed)
        _on_first(distributed, target, lambda: _finish(temporary, target, pending.step, manifest))
        _on_first(distributed, target, lambda: self._publish(target))

    def close(self) -> None:
        """Finishes, and waits until what is no longer kept is deleted.

        Raises:
            ValueError: As `begin`.
        """
        self.finish()
        self._deletion.join()

    def _publish(self, target: Path) -> None:
        """Names the newest checkpoint and deletes older ones beside the next steps."""
        self._deletion.join()
        doomed = _publish(self.folder, target, self.keep)
        self._deletion = threading.Thread(target=_delete, args=(doomed,), name="old checkpoints", daemon=True)
        self._deletion.start()


def save_checkpoint(
    folder: Path,
    step: int,
    engines: dict[str, Engine],
    distributed: DistributedContext,
    *,
    keep: int,
    extra: tuple[dict[str, Any], dict[str, Tensor]] = ({}, {}),
) -> None:
    """Saves one checkpoint and waits for it; every rank calls it.

    Raises:
        ValueError: As `Checkpoints.begin`.
    """
    checkpoints = Checkpoints(folder, engines, distributed, keep=keep)
    checkpoints.begin(step, extra)
    checkpoints.close()


def require_space(folder: Path, nbytes: int, distributed: DistributedContext) -> None:
    """Checks on all ranks together that `folder`'s disk takes `nbytes` more per rank.

    Raises:
        ValueError: It does not; the message names what is needed and what is free.
    """
    need = int(distributed.sum(torch.tensor([nbytes], dtype=torch.int64, device=distributed.device)).item())
    need += need // 50 + 2**20  # headers, JSON and the file system's own
    folder.mkdir(parents=True, exist_ok=True)
    free = distributed.from_first(shutil.disk_usage(folder).free)
    if free < need:
        raise ValueError(
            f"too little disk space: a checkpoint needs {need / 2**20:.0f} MB, but {folder} has only "
            f"{free / 2**20:.0f} MB free; free some, or choose another folder. Older checkpoints are intact"
        )


def checkpoint_bytes(engines: dict[str, Engine], distributed: DistributedContext) -> int:
    """Returns how many bytes of tensors this rank writes into a checkpoint."""
    return sum(tensor.nbytes for tensor in _collect(0, engines, distributed, ({}, {}))[1].values())


def _collect(
    step: int,
    engines: dict[str, Engine],
    distributed: DistributedContext,
    extra: tuple[dict[str, Any], dict[str, Tensor]],
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    tensors: dict[str, Tensor] = {}
    modules = {}
    for name, engine in engines.items():
        fragments: list[Fragment] = (
            engine.fragments() if distributed.rank == 0 or not engine.replicated else []
        )
        for fragment in fragments:
            for slot, view in fragment.slots.items():
                tensors[f"{name}/{slot}/{fragment.name}"] = view
        constants = engine.constants()
        if distributed.rank == 0:
            # Buffers may change in the next forward pass; frozen parameters, which are larger, never do.
            buffers = dict(engine.module.named_buffers(remove_duplicate=False))
            tensors.update(
                {
                    f"{name}/constant/{key}": tensor.clone() if key in buffers else tensor
                    for key, tensor in constants.items()
                }
            )
        modules[name] = {
            "updates": engine.updates,
            "export": "average" if engine.average else "weight",
            "fragments": {f.name: [f.offset, f.slots["weight"].numel()] for f in fragments},
            "shapes": {key: list(shape) for key, shape in engine.shapes.items()},
            "constants": {key: list(tensor.shape) for key, tensor in constants.items()},
        }
    states, generators = random_state()
    tensors.update({f"random/{key}": tensor for key, tensor in generators.items()})
    tensors.update({f"extra/{key}": tensor.clone() for key, tensor in extra[1].items()})
    values = {
        "format": FORMAT,
        "step": step,
        "rank": distributed.rank,
        "ranks": distributed.size,
        "modules": modules,
    }
    return values | {"random": states, "extra": extra[0]}, tensors


def _gather_entries(entries: Entries, distributed: DistributedContext) -> Entries:
    """Collects every rank's sizes and digests as integers: no objects, hence no pickling, between ranks."""
    table = torch.zeros(distributed.size, 2, 33, dtype=torch.int64, device=distributed.device)
    rows = [[size, *bytes.fromhex(str(digest))] for size, digest in entries.values()]
    table[distributed.rank] = torch.tensor(rows, dtype=torch.int64)
    manifest: Entries = {}
    for rank, (tensors, values) in enumerate(distributed.sum(table).tolist()):
        manifest[f"rank_{rank:05d}.safetensors"] = [tensors[0], bytes(tensors[1:]).hex()]
        manifest[f"rank_{rank:05d}.json"] = [values[0], bytes(values[1:]).hex()]
    return manifest


def _start(folder: Path, temporary: Path) -> None:
    remove_leftovers(folder)
    temporary.mkdir(parents=True)


def _finish(temporary: Path, target: Path, step: int, manifest: Entries) -> None:
    files = {name: {"size": size, "sha256": digest} for name, (size, digest) in manifest.items()}
    text = json.dumps({"format": FORMAT, "step": step, "files": files}, indent=1)
    write_flushed(temporary / "MANIFEST.json", text.encode())
    flush(temporary)
    if target.exists():  # a checkpoint that did not verify when the run resumed from an older one
        os.replace(target, target.with_name(f"{target.name}.tmp-replaced-{secrets.token_hex(4)}"))
    os.replace(temporary, target)
    flush(target.parent)


def _publish(folder: Path, target: Path, keep: int) -> list[Path]:
    """Names the newest checkpoint; returns what is to be deleted."""
    write_atomically(folder / "latest", f"{target.name}\n")
    finished = sorted(path for path in folder.glob("step_*") if STEP.fullmatch(path.name))
    doomed = []
    for old in finished[: max(0, finished.index(target) + 1 - keep)] + list(folder.glob("step_*.tmp-*")):
        # Renamed first: a kill in the middle of the deletion leaves no half checkpoint under a good name.
        doomed.append(old.with_name(f"{old.name.partition('.')[0]}.tmp-dropped-{secrets.token_hex(4)}"))
        os.replace(old, doomed[-1])
    return doomed


def _delete(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


def _on_first(distributed: DistributedContext, target: Path, action: Callable[[], None]) -> None:
    """Runs a file operation on rank 0 while the others wait; its failure is every rank's failure."""
    problem = None
    if distributed.rank == 0:
        try:
            action()
        except OSError as error:
            problem = error
    if distributed.any(problem is not None):
        raise _failed(target, problem or "rank 0 reported an error")


def _failed(target: Path, reason: object) -> ValueError:
    return ValueError(f"checkpoint {target} could not be written: {reason}. Older checkpoints are intact")
