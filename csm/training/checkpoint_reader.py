"""Which checkpoint of a run can be loaded, and what it holds: nothing is used before it is checked.

A checkpoint holds exactly the files of its ranks, with the sizes and SHA-256s of its manifest, and its step.
What verifies is read whole before anything of the run is changed; where that fails, the one before is used.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from csm.system.files import file_sha256
from csm.system.log import log
from csm.training.distributed import DistributedContext
from csm.training.plain_engine import Engine
from csm.training.reproducibility import set_random_state

FORMAT = 1
STEP = re.compile(r"step_(\d{8})")
MANIFEST = "MANIFEST.json"
# What JSON of a wrong form, and tensors of wrong names or sizes, raise when they are used.
_ILL_FORMED = (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError)
UNREADABLE = (*_ILL_FORMED, OSError, RuntimeError, SafetensorError)


@dataclass(frozen=True, kw_only=True)
class StoredState:
    """What one rank takes from a checkpoint, read and not yet used.

    Attributes:
        step: After which it was saved.
        slots: By module: for each of the rank's fragments, its tensors by slot.
        constants: By module: buffers and frozen parameters.
        updates: By module: updates of its optimizer.
        values, tensors: What was saved as `extra`.
    """

    step: int
    slots: dict[str, list[dict[str, Tensor]]]
    constants: dict[str, dict[str, Tensor]]
    updates: dict[str, int]
    values: dict[str, Any]
    tensors: dict[str, Tensor]

    def load(self, engines: dict[str, Engine]) -> None:
        """Copies the state into the engines; every rank calls it."""
        for name, engine in engines.items():
            with torch.no_grad():
                for fragment, slots in zip(engine.fragments(), self.slots[name], strict=True):
                    for slot, view in fragment.slots.items():
                        view.copy_(slots[slot])
                engine.load_constants(self.constants[name])
            engine.loaded(self.updates[name])


def newest_checkpoint(
    folder: Path, distributed: DistributedContext, *, without: Collection[Path] = ()
) -> Path | None:
    """Returns the newest checkpoint that verifies; logs why newer ones are skipped.

    Args:
        folder: The run's `checkpoints` folder.
        distributed: Ranks of the run; every rank calls this.
        without: Checkpoints that cannot be loaded, with the reason said.

    Raises:
        ValueError: There are checkpoints, but none verifies.
    """
    candidates = sorted((p for p in folder.glob("step_*") if STEP.fullmatch(p.name)), reverse=True)
    for path in candidates:
        if path in without:
            continue
        reason = problem_of(path, distributed.rank, distributed.size)
        if not distributed.any(reason is not None):
            return path
        if reason is not None:
            log.warning("checkpoint %s is skipped: %s", path.name, reason)
    if candidates:
        raise ValueError(
            f"no checkpoint in {folder} verifies (reasons above); move the folder away "
            f"to start the run from step 0"
        )
    return None


def newest_state(
    folder: Path, engines: dict[str, Engine], distributed: DistributedContext
) -> tuple[Path, StoredState] | None:
    """Returns the newest checkpoint that verifies and can be read whole; logs why newer ones are skipped.

    Raises:
        ValueError: There are checkpoints, but none can be used.
    """
    unusable: set[Path] = set()
    while (path := newest_checkpoint(folder, distributed, without=unusable)) is not None:
        state, problem = None, None
        try:
            state = read_checkpoint(path, engines, distributed)
        except UNREADABLE as error:
            problem = error
        if not distributed.any(problem is not None):
            assert state is not None
            return path, state
        if problem is not None:
            text = " ".join(f"{type(problem).__name__}: {problem}".split())
            log.warning("checkpoint %s is skipped: it cannot be read (%s)", path.name, text)
        unusable.add(path)
    return None


def read_checkpoint(path: Path, engines: dict[str, Engine], distributed: DistributedContext) -> StoredState:
    """Reads what this rank needs of a verified checkpoint, and restores the random numbers.

    Raises:
        ValueError: The checkpoint is of other modules or parameters.
        Exception: One of `UNREADABLE`: its content has a wrong form.
    """
    ranks = _read_ranks(path)
    slots: dict[str, list[dict[str, Tensor]]] = {}
    constants, updates = {}, {}
    for name, engine in engines.items():
        _require_match(path, ranks[0], name, engine)
        reader = _Reader(path, ranks, name)
        slots[name] = [
            {
                slot: reader.piece(slot, fragment.name, fragment.offset, view.numel()).view(view.shape)
                for slot, view in fragment.slots.items()
            }
            for fragment in engine.fragments()
        ]
        module = ranks[0]["modules"][name]
        constants[name] = {key: reader.constant(key) for key in module["constants"]}
        _require_constants(engine, constants[name])
        updates[name] = int(module["updates"])
    same_ranks = len(ranks) == distributed.size
    rank = distributed.rank if same_ranks else 0
    with safe_open(str(path / f"rank_{rank:05d}.safetensors"), framework="pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys() if key.startswith(("random/", "extra/"))}
    set_random_state(ranks[rank]["random"], _within(tensors, "random"))
    return StoredState(
        step=ranks[0]["step"],
        slots=slots,
        constants=constants,
        updates=updates,
        values=dict(ranks[rank]["extra"]) if same_ranks else {},
        tensors=_within(tensors, "extra") if same_ranks else {},
    )


def exported_weights(path: Path, name: str, engine: Engine) -> dict[str, Tensor]:
    """Assembles a module's state dict, in fp32 on the CPU, from a verified checkpoint.

    The weight average where the run keeps one, else the weights; buffers and frozen parameters as they are.
    """
    ranks = _read_ranks(path)
    reader = _Reader(path, ranks, name)
    module = ranks[0]["modules"][name]
    first_names: dict[int, str] = {}
    state = {}
    for key, parameter in engine.module.named_parameters(remove_duplicate=False):
        first = first_names.setdefault(id(parameter), key)
        if first in module["shapes"]:
            shape = module["shapes"][first]
            count = int(torch.Size(shape).numel())
            state[key] = reader.piece(module["export"], first, 0, count).view(shape).clone()
    for key in module["constants"]:
        state[key] = reader.constant(key)
    return state


def problem_of(path: Path, rank: int, ranks: int) -> str | None:
    """Returns why a checkpoint does not verify, or None. Each rank reads its share of the files."""
    try:
        if path.is_symlink():
            return "it is a link"
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT:
            return f"its format is {manifest['format']}, this program reads {FORMAT}"
        if path.name != f"step_{manifest['step']:08d}":
            return f"its manifest is of step {manifest['step']}"
        files = {name: (entry["size"], entry["sha256"]) for name, entry in manifest["files"].items()}
        if (problem := _wrong_files(path, set(files))) is not None:
            return problem
        for name in sorted(files)[rank::ranks]:
            size, digest = files[name]
            found = (path / name).stat().st_size
            if found != size:
                return f"{name} has {found} bytes, the manifest says {size}"
            if file_sha256(path / name) != digest:
                return f"{name} has another SHA-256 than the manifest says; its bytes have changed on disk"
        return _wrong_ranks(path, len(files) // 2, manifest["step"])
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"it cannot be read ({error})"
    except _ILL_FORMED as error:
        return f"{MANIFEST} is damaged ({type(error).__name__}: {error})"


def _wrong_files(path: Path, listed: set[str]) -> str | None:
    """Returns how the files of a checkpoint differ from those of some number of ranks."""
    ranks = max(1, len(listed) // 2)
    expected = {f"rank_{r:05d}.{kind}" for r in range(ranks) for kind in ("json", "safetensors")}
    if listed != expected:
        names = ", ".join(sorted(listed ^ expected)[:4])
        return f"its manifest does not list the files of {ranks} ranks: {names}"
    here = {entry.name for entry in path.iterdir()} - {MANIFEST}
    if here - expected:
        return f"it holds {', '.join(sorted(here - expected)[:4])}, which its manifest does not list"
    links = sorted(name for name in (*here, MANIFEST) if (path / name).is_symlink())
    return f"{', '.join(links[:4])} is a link" if links else None


def _wrong_ranks(path: Path, ranks: int, step: int) -> str | None:
    """Returns why the first rank's values contradict the manifest."""
    try:
        values = json.loads((path / "rank_00000.json").read_text(encoding="utf-8"))
        if values["ranks"] != ranks:
            return f"it was saved by {values['ranks']} ranks, its manifest lists {ranks}"
        return None if values["step"] == step else f"rank_00000.json is of step {values['step']}"
    except _ILL_FORMED as error:
        return f"rank_00000.json is damaged ({type(error).__name__}: {error})"


class _Reader:
    """Reads pieces of whole parameters out of the ranks' fragments."""

    def __init__(self, path: Path, ranks: list[dict[str, Any]], name: str) -> None:
        self.name = name
        self.files = [
            safe_open(str(path / f"rank_{r:05d}.safetensors"), framework="pt") for r in range(len(ranks))
        ]
        self.places: dict[str, list[tuple[int, int, int]]] = {}
        for rank, values in enumerate(ranks):
            for key, (offset, count) in values["modules"][name]["fragments"].items():
                self.places.setdefault(key, []).append((offset, count, rank))

    def piece(self, slot: str, key: str, offset: int, count: int) -> Tensor:
        pieces, position = [], offset
        for start, length, rank in sorted(self.places.get(key, [])):
            if start <= position < start + length and position < offset + count:
                end = min(start + length, offset + count)
                stored = self.files[rank].get_slice(f"{self.name}/{slot}/{key}")
                if stored.get_shape() != [length] or stored.get_dtype() != "F32":
                    raise ValueError(f"{self.name}/{slot}/{key} is no fp32 vector of {length}")
                pieces.append(stored[position - start : end - start])
                position = end
        if position != offset + count:
            raise ValueError(
                f"checkpoint: {self.name}/{slot}/{key} is incomplete; it has no element {position}"
            )
        return torch.cat(pieces) if len(pieces) != 1 else pieces[0]

    def constant(self, key: str) -> Tensor:
        return self.files[0].get_tensor(f"{self.name}/constant/{key}")


def _read_ranks(path: Path) -> list[dict[str, Any]]:
    """Returns the values of every rank.

    Raises:
        ValueError: They are no values of ranks.
    """
    ranks = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(path.glob("rank_*.json"))]
    for values in ranks:
        for module in values["modules"].values():
            if any(type(n) is not int or n < 0 for place in module["fragments"].values() for n in place):
                raise ValueError("a fragment's offset is not a number")
    return ranks


def _require_match(path: Path, values: dict[str, Any], name: str, engine: Engine) -> None:
    stored = values["modules"].get(name)
    if stored is None:
        raise ValueError(f"{path}: it holds {sorted(values['modules'])}, but this run trains {name!r}")
    here = {key: list(shape) for key, shape in engine.shapes.items()}
    differing = sorted(
        key for key in here.keys() | stored["shapes"].keys() if here.get(key) != stored["shapes"].get(key)
    )
    if differing:
        listed = "; ".join(f"{k} {stored['shapes'].get(k)} there, {here.get(k)} here" for k in differing[:5])
        raise ValueError(
            f"{path}: {len(differing)} parameters of {name} differ: {listed}; use the run's own config"
        )


def _require_constants(engine: Engine, constants: dict[str, Tensor]) -> None:
    """Refuses constants that do not fit: those of a frozen parameter under ZeRO-3 are not loaded."""
    for key, value in engine.module.state_dict(keep_vars=True).items():
        if not value.requires_grad and not hasattr(value, "ds_id") and constants[key].shape != value.shape:
            raise ValueError(f"{key} has shape {list(constants[key].shape)}, here {list(value.shape)}")


def _within(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.partition("/")[2]: tensor for key, tensor in tensors.items() if key.startswith(prefix + "/")}
