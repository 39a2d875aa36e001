"""Kills preparations and encodings of a corpus at random until a time is over: `soak.py --what data`.

Each round prepares a corpus of made-up recordings and encodes it on one to three ranks, in shards of a few
turns. Processes are killed at random moments, one of them or all, by SIGKILL or SIGTERM, and started again
until the work is complete. The files of every round are byte-identical to those of one that was left alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import torch

from csm.audio.files import write_audio
from csm.recipes.named import recipe
from csm.tokenizer.conversational_rvq import ConversationalRVQ

ROOT = Path(__file__).resolve().parents[1]
RATE, RECORDINGS = 11_025, 24
KILL_SHARE, MOST_SESSIONS, SESSION_S = 0.8, 60, 600.0
# Small shards, so that a kill finds some finished and some not.
COMMAND = """
import sys
from csm.data import code_shards
from csm.cli import main
code_shards.SHARD_BYTES = 20_000
sys.exit(main(sys.argv[1:]))
"""


def make_source(folder: Path) -> None:
    """Writes recordings of noise with two timed turns each, and a tokenizer."""
    draw, generator = random.Random(0), torch.Generator().manual_seed(0)
    for number in range(RECORDINGS):
        seconds = draw.uniform(2.0, 4.0)
        noise = 0.1 * torch.randn(1, round(seconds * RATE), generator=generator)
        write_audio(folder / f"source/{number:02d}.wav", noise, RATE)
        turns = [
            {"speaker": "A", "text": f"number {number}", "start": 0.1, "end": 1.2},
            {"speaker": "B", "text": "and one more", "start": 1.3, "end": seconds - 0.1},
        ]
        (folder / f"source/{number:02d}.json").write_text(json.dumps({"turns": turns}))
    torch.manual_seed(0)
    ConversationalRVQ(recipe("tiny").tokenizer).save_pretrained(folder / "tokenizer")


def commands(folder: Path) -> dict[str, list[str]]:
    """Returns the words of both commands; their outputs are `folder/corpus` and `folder/codes`."""
    source, corpus = ["--source", str(folder / "source")], str(folder / "corpus")
    tokenizer = ["--tokenizer", str(folder / "tokenizer"), "--set", f"corpus={corpus}"]
    return {
        "prepare": ["prepare", "--corpus", "recordings", *source, "--output", corpus],
        "encode": ["encode", "--recipe", "tiny", *tokenizer, "--output", str(folder / "codes")],
    }


def start(words: list[str], ranks: int, log: Path) -> list[subprocess.Popen]:
    """Starts a command on some ranks, as srun does."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port = str(server.getsockname()[1])
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    base = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    base["CSM_CACHE"] = str(log.parent / "cache")
    started = []
    for rank in range(ranks):
        where = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
        more = {key: str(value) for key, value in where.items()} if ranks > 1 else {}
        more |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port} if ranks > 1 else {}
        with log.open("a") as file:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-c", COMMAND, *words],
                    env={**base, **more},
                    stdout=file,
                    stderr=file,
                    start_new_session=True,
                )
            )
    return started


def run_once(words: list[str], ranks: int, log: Path, kill_at: float | None, draw: random.Random) -> str:
    """Runs a command; returns "complete", what was killed, or "failed"."""
    started = start(words, ranks, log)
    killed, begun = "", time.monotonic()
    while any(process.poll() is None for process in started):
        passed = time.monotonic() - begun
        assert passed < SESSION_S, f"{words[0]} has not ended after {SESSION_S:.0f} s"
        if kill_at is not None and passed > kill_at and not killed:
            number = draw.choice((signal.SIGKILL, signal.SIGTERM))
            victims = started if draw.random() < 0.5 else [draw.choice(started)]
            killed = f"{number.name} to {len(victims)} of {ranks}"
            end(victims, number)
            time.sleep(draw.uniform(0, 1))
            end(started, signal.SIGKILL)  # as a scheduler ends the rest of a job
        time.sleep(0.02)
    return killed or ("complete" if all(process.returncode == 0 for process in started) else "failed")


def end(processes: list[subprocess.Popen], number: signal.Signals) -> None:
    """Sends a signal to each process and what it started."""
    for process in processes:
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            pass


def contents(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of every file of the corpus and its codes."""
    paths = [path for name in ("corpus", "codes") for path in sorted((folder / name).rglob("*"))]
    found = {path: path.read_bytes() for path in paths if path.is_file()}
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(data).hexdigest() for path, data in found.items()
    }


def soak_data(folder: Path, *, minutes: float, kills: int, seed: int) -> dict:
    """Kills and restarts until the time is over, or `kills` were made; returns the record."""
    folder.mkdir(parents=True, exist_ok=True)
    make_source(folder)
    draw, log = random.Random(seed), folder / "log"
    record: dict = {"sessions": [], "failures": [], "finished_runs": 0}
    lengths: dict[str, float] = {}
    expected: dict[str, str] = {}
    deadline, number, killed = time.monotonic() + 60 * minutes, 0, 0
    while not expected or (time.monotonic() < deadline and killed < kills):
        for name in ("corpus", "codes", ".corpus.partial", "cache"):
            shutil.rmtree(folder / name, ignore_errors=True)
        for name, words in commands(folder).items():
            ranks = draw.randint(1, 3) if name == "encode" and expected else 1
            for _ in range(MOST_SESSIONS):
                mortal = expected and draw.random() < KILL_SHARE and time.monotonic() < deadline
                begun = time.monotonic()
                moment = draw.uniform(0.3, 1.0) * lengths[name] if mortal else None
                what = run_once(words, ranks, log, moment, draw)
                entry = {"round": number, "command": name, "ranks": ranks, "end": what}
                record["sessions"].append(entry)
                print(json.dumps(entry), flush=True)
                lengths.setdefault(name, time.monotonic() - begun)
                killed += what.startswith("SIG")
                if not what.startswith("SIG"):
                    break
            if what != "complete":
                record["failures"].append({**entry, "log": log.read_text(errors="replace")[-3000:]})
        found = contents(folder)
        if expected and found != expected:
            names = {*expected, *found}
            other = sorted(path for path in names if found.get(path) != expected.get(path))
            record["failures"].append({"round": number, "other": other})
        if not expected:
            expected, deadline = found, time.monotonic() + 60 * minutes
        record["finished_runs"] += 1
        number += 1
    record["files"] = len(expected)
    return record
