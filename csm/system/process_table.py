"""Linux' process table: which processes started this one, and which of them are launchers of ranks."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

# Programs that start ranks and wait for them, as `python FILE` and as `python -m MODULE`.
LAUNCHER_FILES = ("deepspeed", "deepspeed.pt", "ds", "torchrun", "accelerate")
LAUNCHER_MODULES = (
    "deepspeed.launcher.runner",
    "deepspeed.launcher.launch",
    "torch.distributed.run",
    "torch.distributed.launch",
)
# What adopts the children of a dead process: ranks below it have lost their launcher.
REAPERS = ("init", "systemd", "tini", "dumb-init", "docker-init")
# May stand between two launchers, or between a launcher and `make`.
WRAPPERS = ("sh", "bash", "dash", "zsh", "env", "nice", "numactl", "stdbuf", "time", "timeout")


class Process(NamedTuple):
    """A process, unmistakable: its number may be given to another one after its end.

    Attributes:
        pid: Its number. started: clock tick of its start. parent: its parent's number.
        state: Linux' letter: R, S, D run or wait; T is stopped; Z has ended and waits for its parent.
    """

    pid: int
    started: int
    parent: int
    state: str

    @property
    def ended(self) -> bool:
        """Whether it runs no more."""
        now = process(self.pid)
        return now is None or now.started != self.started or now.state in "ZX"

    @property
    def stopped(self) -> bool:
        """Whether it is stopped by a signal, as by Ctrl-Z."""
        now = process(self.pid)
        return now is not None and now.started == self.started and now.state == "T"


def process(pid: int) -> Process | None:
    """Returns a process by its number, or None where there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return Process(pid, int(fields[19]), int(fields[1]), fields[0])


def words(pid: int) -> list[str]:
    """Returns the command line of a process; empty where it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def ancestors(pid: int) -> list[Process]:
    """Returns the parent of a process, the parent's parent, and so on up to process 1."""
    found: list[Process] = []
    here = process(pid)
    while here is not None and here.parent > 0:
        here = process(here.parent)
        if here is not None:
            found.append(here)
    return found


def children(pid: int) -> list[Process]:
    """Returns the living children of a process."""
    numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    processes = (process(number) for number in numbers)
    return [child for child in processes if child and child.parent == pid and child.state not in "ZX"]


def program(pid: int) -> str:
    """Returns what a process runs: of Python the file's name or the module, of others the program's name."""
    line = words(pid)
    if not line:
        return ""
    if not Path(line[0]).name.startswith("python"):
        return Path(line[0]).name
    rest = iter(line[1:])
    for word in rest:
        if word == "-m":
            return next(rest, "")
        if word in ("-X", "-W"):
            next(rest, "")
        elif not word.startswith("-"):
            return Path(word).name
    return ""


def starts_ranks(pid: int) -> bool:
    """Whether a process is a program that starts ranks."""
    name = program(pid)
    if name == "csm":
        return "--ranks" in words(pid)
    return name in (*LAUNCHER_FILES, *LAUNCHER_MODULES)


def is_launcher(pid: int) -> bool:
    """Whether a process starts ranks, or is the `make` of a recipe that does."""
    return starts_ranks(pid) or program(pid) in ("make", "gmake")


def launcher_chain(pid: int) -> list[Process]:
    """Returns the ancestors of a rank whose end is the end of its run, the nearest first.

    These are its parent, whatever it is, and the launchers and wrappers above it up to the topmost launcher.
    """
    line = ancestors(pid)
    length = 1
    for index, above in enumerate(line):
        if is_launcher(above.pid):
            length = index + 1
        elif index > 0 and program(above.pid) not in WRAPPERS:
            break
    return line[:length]


def is_orphan(pid: int) -> bool:
    """Whether the parent of a rank is one that adopts orphans, and no launcher (on Linux)."""
    line = ancestors(pid)
    return bool(line) and (
        not any(starts_ranks(above.pid) for above in line)
        and (line[0].pid == 1 or program(line[0].pid) in REAPERS)
    )
