"""Kills a training at random until a time is over; every restart must go on as if nothing had happened.

    python tests/soak.py --minutes 120 --record soak.json
    python tests/soak.py --what data --minutes 120          preparations and encodings: soak_data.py

trains the recipe `tiny` on random codes on two ranks, through DeepSpeed's launcher, torchrun, `csm train
--ranks` and two processes as srun starts them. Each session is ended at a random moment, half of the times
inside a save: the topmost process, a launcher, a supervisor, a rank, or all of them, by SIGKILL, SIGTERM or
Ctrl-C. After each: no process is left within 10 s, the topmost exit status is not that of a success unless a
stop was asked for, every checkpoint verifies. A finished run has the weights of one that was left alone.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from csm.data.code_shards import EncodedTurn, write_code_shards
from csm.data.manifest import Conversation, Turn, write_manifest
from csm.system import process_table

ROOT = Path(__file__).resolve().parents[1]
LAUNCHERS = ("deepspeed", "torchrun", "csm", "srun")
VICTIMS = ("top", "launcher", "supervisor", "rank", "all")
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
END_S, FINISH_S = 10.0, 600.0
SRUN = """
import os, subprocess, sys
ranks = []
for number in "01":
    where = {**os.environ, "RANK": number, "LOCAL_RANK": number}
    ranks.append(subprocess.Popen(sys.argv[1:], env=where))
sys.exit(max(abs(rank.wait()) for rank in ranks))
"""


def make_corpus(folder: Path) -> None:
    """Writes a corpus without audio and random codes of it."""
    generator = torch.Generator().manual_seed(0)
    names = {f"c{index}": "validation" if index == 8 else "train" for index in range(9)}
    kept = {"audio": "a.wav", "end": 2.0}
    conversations = [
        Conversation(
            id=name,
            split=split,
            turns=tuple(
                Turn(
                    id=f"{name}_{i}",
                    conversation=name,
                    index=i,
                    speaker="AB"[i % 2],
                    text=f"turn {i}",
                    **kept,
                )
                for i in range(12)
            ),
        )
        for name, split in names.items()
    ]
    folder.mkdir(parents=True, exist_ok=True)
    write_manifest(folder / "manifest.jsonl", conversations)
    (folder / "corpus.json").write_text(json.dumps({"name": "soak"}))
    turns = [turn for conversation in conversations for turn in conversation.turns]
    write_code_shards(folder / "codes", [random_turn(turn.id, generator) for turn in turns], {})


def random_turn(name: str, generator: torch.Generator) -> EncodedTurn:
    """Returns a turn of 20 random frames."""
    codes = torch.randint(0, 32, (4, 20), generator=generator).short()
    return EncodedTurn(name, codes, torch.rand(20, 3, generator=generator).half(), torch.zeros(4).half())


class Session:
    """One start of a training, and its processes."""

    def __init__(self, launcher: str, corpus: Path, output: Path, fields: list[str]) -> None:
        self.launcher, self.output = launcher, output
        self.log = (output.parent / f"{output.name}.log").open("a+")
        script = str(ROOT / "launch" / "train.py")
        sets = [word for field in (f"corpus={corpus}", *fields) for word in ("--set", field)]
        words = ["--recipe", "tiny", *sets, "--codes", str(corpus / "codes"), "--output", str(output)]
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            port = str(server.getsockname()[1])
        beside = Path(sys.executable).parent
        command = {
            "deepspeed": [
                str(beside / "deepspeed"),
                "--num_accelerators",
                "2",
                "--master_port",
                port,
                script,
            ],
            "torchrun": [
                "-m",
                "torch.distributed.run",
                "--nproc-per-node",
                "2",
                "--master-port",
                port,
                script,
            ],
            "csm": ["-m", "csm", "train", "--ranks", "2"],
            "srun": ["-c", SRUN, sys.executable, script],
            "python": [script],
        }[launcher]
        paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        if launcher == "srun":
            environment |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
            environment |= {"MASTER_PORT": port}
        self.top = subprocess.Popen(
            [sys.executable, *command, *words],
            env=environment,
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )
        self.peaks: dict[int, list[tuple[int, int]]] = {}

    def processes(self) -> list[int]:
        """Returns the numbers of the living processes that work on this run's folder."""
        numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        ours = [number for number in numbers if str(self.output) in process_table.words(number)]
        return [number for number in ours if (p := process_table.process(number)) and p.state not in "ZX"]

    def roles(self) -> dict[str, list[int]]:
        """Returns the process numbers of each part of the chain."""
        alive = self.processes()
        parents = {pid: p.parent for pid in alive if (p := process_table.process(pid))}
        leaves = [pid for pid in alive if pid not in parents.values()]
        ranks = [pid for pid in leaves if parents.get(parents.get(pid, 0)) is not None]
        guards = [parents[pid] for pid in ranks]
        launchers = sorted({parents[pid] for pid in guards if pid in parents and parents[pid] in alive})
        return {
            "top": [self.top.pid],
            "launcher": launchers,
            "supervisor": guards,
            "rank": ranks,
            "all": alive,
        }

    def measure(self) -> None:
        """Notes the memory and the open files of each rank."""
        for pid in self.roles()["rank"]:
            try:
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            except OSError:
                continue
            self.peaks.setdefault(pid, []).append((pages * os.sysconf("SC_PAGE_SIZE"), files))

    def ended(self, seconds: float) -> int:
        """Waits until no process is left; returns the topmost exit status.

        Raises:
            AssertionError: One is left after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while self.top.poll() is None or self.processes():
            assert time.monotonic() < deadline, (
                f"left after {seconds} s: {self.processes()}, top {self.top.poll()}"
            )
            time.sleep(0.05)
        self.log.close()
        return int(self.top.returncode)


def kill_at_random(session: Session, draw: random.Random, start_s: float) -> tuple[str, str, bool] | None:
    """Waits for a random moment and ends something; returns what, by which signal, and whether in a save.

    None where the training ended by itself before.
    """
    saving, until = draw.random() < 0.5, time.monotonic() + draw.uniform(0.1, start_s)
    checkpoints = session.output / "checkpoints"
    while session.top.poll() is None and time.monotonic() < until + (start_s if saving else 0):
        if saving and time.monotonic() > until and list(checkpoints.glob("*.tmp-*")):
            break
        time.sleep(0.002 if saving else 0.1)
    in_save = bool(list(checkpoints.glob("*.tmp-*")))
    victim, number = draw.choice(VICTIMS), draw.choice(SIGNALS)
    if session.top.poll() is not None:
        return None
    if number == signal.SIGINT:
        victim = "group"
        os.killpg(session.top.pid, number)
        return victim, number.name, in_save
    found = session.roles()[victim] or [session.top.pid]
    for pid in found if victim == "all" else [draw.choice(found)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
    return victim, number.name, in_save


def verify(checkpoints: Path) -> None:
    """Checks the SHA-256 of every file of every checkpoint, by the manifests."""
    for manifest in checkpoints.glob("step_????????/MANIFEST.json"):
        for name, entry in json.loads(manifest.read_text())["files"].items():
            found = hashlib.sha256((manifest.parent / name).read_bytes()).hexdigest()
            assert found == entry["sha256"], (
                f"{manifest.parent.name}/{name} has other bytes than were written"
            )


def weights(output: Path) -> str:
    """Returns the SHA-256 of a finished run's weights."""
    return hashlib.sha256((output / "model.safetensors").read_bytes()).hexdigest()


def soak(
    folder: Path, *, minutes: float, steps: int, kills: int, launchers: tuple[str, ...], seed: int
) -> dict:
    """Kills and restarts until the time is over (or `kills` were made); returns the record."""
    make_corpus(folder / "corpus")
    fields = [f"training.steps={steps}", "training.checkpoint_every=4", "training.validate_every=50"]
    fields += ["training.samples=false", "training.tracker=none", "training.log_every=5"]
    began = time.monotonic()
    whole = Session("srun", folder / "corpus", folder / "whole", fields)
    while whole.top.poll() is None:
        whole.measure()
        time.sleep(1.0)
    assert whole.ended(END_S) == 0, (folder / "whole.log").read_text()[-2000:]
    start_s = time.monotonic() - began
    expected, draw = weights(folder / "whole"), random.Random(seed)
    record: dict = {"sessions": [], "failures": [], "finished_runs": 0, "weights": expected}
    record["memory_and_files"] = [samples[:: max(1, len(samples) // 8)] for samples in whole.peaks.values()]
    killed, number = 0, 0
    deadline = began + 60 * minutes
    while time.monotonic() < deadline and killed < kills:
        output = folder / f"run_{number}"
        session = Session(draw.choice(launchers), folder / "corpus", output, fields)
        what = kill_at_random(session, draw, start_s)
        killed += what is not None
        what = what or ("none", "none", False)
        entry: dict = {"launcher": session.launcher, "victim": what[0], "signal": what[1], "in_save": what[2]}
        try:
            begun = time.monotonic()
            entry["status"] = session.ended(END_S)
            entry["seconds"] = round(time.monotonic() - begun, 1)
            verify(output / "checkpoints")
            complete = (output / "complete.json").exists()
            assert entry["status"] or complete or what[1] != "SIGKILL", "killed, and reported as a success"
        except AssertionError as error:
            record["failures"].append({**entry, "error": str(error), "log": log_of(output)[-3000:]})
            for pid in session.processes():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        record["sessions"].append(entry)
        print(json.dumps(entry), flush=True)
        if (output / "complete.json").exists() or killed % 12 == 0 or killed == kills:
            finish(record, folder, output, draw.choice(launchers), fields)
            number += 1
    return record


def finish(record: dict, folder: Path, output: Path, launcher: str, fields: list[str]) -> None:
    """Lets a run end and compares its weights."""
    status = Session(launcher, folder / "corpus", output, fields).ended(FINISH_S)
    record["finished_runs"] += 1
    if status != 0 or weights(output) != record["weights"]:
        record["failures"].append({"run": output.name, "status": status, "log": log_of(output)[-3000:]})


def log_of(output: Path) -> str:
    """Returns what all sessions of a run printed."""
    return (output.parent / f"{output.name}.log").read_text(errors="replace")


def main() -> int:
    """Soaks; the exit status is 1 where something failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--what", choices=("training", "data"), default="training")
    parser.add_argument("--minutes", type=float, default=120)
    parser.add_argument("--steps", type=int, default=600, help="of a run")
    parser.add_argument("--kills", type=int, default=10**9, help="end after this number of kills")
    parser.add_argument("--launchers", nargs="+", choices=LAUNCHERS, default=LAUNCHERS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="where to work (default: a temporary one)")
    parser.add_argument("--record", type=Path, help="JSON file of what happened")
    options = parser.parse_args()
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # ignored where this runs in a shell's background
    with tempfile.TemporaryDirectory() as temporary:
        folder = (options.folder or Path(temporary)).resolve()
        chosen = {"minutes": options.minutes, "kills": options.kills, "seed": options.seed}
        if options.what == "data":
            from soak_data import soak_data

            record = soak_data(folder, **chosen)
        else:
            record = soak(folder, **chosen, steps=options.steps, launchers=tuple(options.launchers))
    if options.record is not None:
        options.record.write_text(json.dumps(record, indent=1) + "\n")
    killed = sum(
        session.get("victim", "none") != "none" or str(session.get("end")).startswith("SIG")
        for session in record["sessions"]
    )
    print(f"{killed} kills, {record['finished_runs']} runs finished, {len(record['failures'])} failures")
    return 1 if record["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
