"""The output folder of a run: whose it is, who is writing in it, when to stop, whether it is complete."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO

from csm import config as config_files
from csm.system.files import file_sha256, remove_leftovers, write_atomically
from csm.system.log import log
from csm.system.process_table import is_orphan
from csm.training.distributed import DistributedContext
from csm.training.options import TrainingConfig

# A field of a run that may differ when it is continued: how many steps it has, if there are more than were
# done. So may the folders of what is read, where the content of `materials` is the same.
LONGER = "training.steps"


def require_same_run(
    output: Path,
    description: dict[str, Any],
    config: TrainingConfig,
    materials: Mapping[str, str] | None = None,
) -> None:
    """Refuses a folder that holds another run, or this run on other data; reads only, on every rank.

    Args:
        output: The folder.
        description: The resolved config of the run.
        config: Options of the training. More steps than the run had continue it.
        materials: SHA-256 by name of what is trained on: "FIELD/file" or "FIELD 0/file" of the folder that
            the field `run.FIELD` names. A folder of the same content may lie elsewhere.

    Raises:
        ValueError: `output/run.json` describes another run (the differing fields are listed), or there are
            results without a run.json.
    """
    path = output / "run.json"
    if not path.is_file():
        remains = [
            name for name in ("checkpoints", "metrics.jsonl", "complete.json") if (output / name).exists()
        ]
        if remains:
            raise ValueError(
                f"output: {output} has {', '.join(remains)} but no run.json; choose another folder"
            )
        return
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        there = _flat({"config": stored["config"], "training": stored["training"]})
        if not isinstance(stored.get("sessions"), list) or not isinstance(stored.get("materials", {}), dict):
            raise TypeError("no list of sessions")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"output: {path} is not readable ({error}); choose another folder") from error
    here = _flat({"config": description, "training": config_files.to_dict(config)})
    before = stored.get("materials", {})
    same_content = bool(materials) and materials == before
    differing = [
        key
        for key in sorted(here.keys() | there.keys())
        if here.get(key, "nothing") != there.get(key, "nothing")
        and not (same_content and _names_a_folder(key, before))
        and not (key == LONGER and config.steps >= _steps_done(output))
    ]
    if differing:
        listed = "\n".join(
            f"  - {k}: {there.get(k, 'nothing')} there, {here.get(k, 'nothing')} here" for k in differing
        )
        raise ValueError(
            f"output: {output} holds another run; these fields differ:\n{listed}\n"
            "Choose another output folder, or repeat that run's options to resume it."
        )
    if materials and before and not same_content:
        changed = sorted(
            name for name in materials.keys() | before.keys() if materials.get(name) != before.get(name)
        )
        raise ValueError(
            f"output: {output} was trained on other data: {', '.join(changed)} differ from what its run.json "
            f"names; restore them, or choose another output folder"
        )


def require_writable(output: Path) -> None:
    """Makes the folder of a run and checks that files can be written there, before anything is loaded.

    Raises:
        ValueError: They cannot.
    """
    probe = output / f".writable.tmp-{os.getpid()}"
    try:
        output.mkdir(parents=True, exist_ok=True)
        probe.touch()
        # Another rank that starts may have swept it away.
        probe.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"output: {output} cannot be written ({reason}); choose another folder") from error


def write_run(
    output: Path,
    description: dict[str, Any],
    config: TrainingConfig,
    distributed: DistributedContext,
    step: int,
    inputs: Mapping[str, Any],
    materials: Mapping[str, str] | None = None,
) -> None:
    """Writes run.json, or adds this session to the one that is there. Rank 0 calls this."""
    path = output / "run.json"
    sessions = json.loads(path.read_text(encoding="utf-8"))["sessions"] if path.is_file() else []
    session = {
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "after_step": step,
        "command": [sys.executable, *sys.argv],
        "commit": _commit(),
        "versions": _versions(),
        "device": _device_name(distributed),
        "ranks": distributed.size,
    }
    run = {"config": _plain(description), "training": config_files.to_dict(config), "seed": config.seed}
    run["inputs"] = _plain(inputs)
    run["materials"] = dict(materials or {})
    text = json.dumps(run | {"sessions": [*sessions, session]}, indent=2, ensure_ascii=False)
    write_atomically(path, text + "\n")


def write_complete(output: Path, step: int, files: list[Path]) -> None:
    """Marks the run as complete: complete.json names the last step and the SHA-256 of the run's results."""
    digests = {path.relative_to(output).as_posix(): file_sha256(path) for path in files}
    write_atomically(output / "complete.json", json.dumps({"step": step, "files": digests}, indent=2) + "\n")


def is_complete(output: Path, steps: int) -> bool:
    """Returns whether the run did all its steps and its results are still what it wrote."""
    complete = _complete(output)
    files = complete.get("files", {})
    return (
        complete.get("step") == steps
        and bool(files)
        and all(
            (output / name).is_file() and file_sha256(output / name) == digest
            for name, digest in files.items()
        )
    )


def _complete(output: Path) -> dict[str, Any]:
    """Reads complete.json; empty where there is none or a damaged one: the results are then written again."""
    path = output / "complete.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return found if isinstance(found.get("files", {}), dict) else {}
    except (ValueError, AttributeError, RecursionError) as error:
        log.warning("%s is damaged (%s): the results are written again", path, error)
        return {}


def _names_a_folder(field: str, materials: Mapping[str, str]) -> bool:
    """Returns whether a field of a run names the folder of some of its materials."""
    return any(
        field == f"config.run.{name.partition('/')[0].partition(' ')[0]}" for name in materials if "/" in name
    )


def _steps_done(output: Path) -> int:
    """Returns the step of the newest checkpoint by name."""
    names = (path.name.removeprefix("step_") for path in (output / "checkpoints").glob("step_*"))
    return max((int(name) for name in names if name.isdigit()), default=0)


@contextmanager
def only_writer(output: Path, distributed: DistributedContext, *, patience: float = 20.0) -> Iterator[None]:
    """Holds the folder's lock: two processes training into one folder would spoil both.

    The lock is the operating system's and ends with the process, however it ends. What killed writers left
    half-written is removed.

    Raises:
        ValueError: Another process holds it for longer than `patience` seconds.
    """
    file: BinaryIO | None = None
    if distributed.rank == 0:
        file = (output / ".lock").open("a+b")
        deadline = time.monotonic() + patience
        while not _locked(file):
            if time.monotonic() > deadline:
                file.close()
                file = None
                break
            time.sleep(0.2)
        if file is not None:
            remove_leftovers(output)
    try:
        if distributed.any(distributed.rank == 0 and file is None):
            raise ValueError(
                f"output: another process is training into {output}; wait for its end or stop it "
                "(ranks whose launcher was killed stop by themselves after their step)"
            )
        yield
    finally:
        if file is not None:
            file.close()


class StopRequest:
    """Becomes true on SIGTERM, SIGINT, or when the process that started this rank is gone.

    A second SIGTERM is the same request again: launchers pass it on to those that have it already. A second
    SIGINT ends the process in the usual way. A signal that is ignored, as SIGINT in the background of a shell
    or below a supervisor, stays so.
    """

    def __init__(self, distributed: DistributedContext) -> None:
        several = distributed.size > 1
        self.reason = "the end of its launcher" if several and is_orphan(os.getpid()) else ""
        self._parent = os.getppid() if several else None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                if signal.getsignal(number) != signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}

    def __bool__(self) -> bool:
        if self._parent is not None and os.getppid() != self._parent:
            self.reason = "the end of its launcher"
        return bool(self.reason)

    def _receive(self, number: int, _: FrameType | None) -> None:
        self.reason = signal.Signals(number).name
        if number == signal.SIGINT:
            signal.signal(number, self._previous[number])


def _locked(file: BinaryIO) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _flat(value: Any, prefix: str = "") -> dict[str, Any]:
    value = _plain(value)
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, item in value.items():
        flat.update(_flat(item, f"{prefix}.{key}" if prefix else str(key)))
    return flat


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "platform": platform.system()}
    for package in ("torch", "deepspeed", "numpy", "safetensors"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def _device_name(distributed: DistributedContext) -> str:
    if distributed.device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(distributed.device)
    return f"cpu ({platform.machine()}, {os.cpu_count()} cores)"


def _commit() -> str | None:
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
