"""Compares two commits bit for bit: the packaged voice's audio, a corpus's codes, a short run's losses.

python benchmarks/same_results.py BEFORE AFTER

For a change that must change nothing. Both commits are checked out beside each other, compile their kernels
and run the commands that README names; the exit status is 1 where a value that both have differs. Two CPU
cores take about 6 minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
LINES = (
    ("You and whose army?", "JOE", "3"),
    ("I had a plane to catch, and no time to lose.", "FAYE", "0"),
    ("Sparky, 221 crates came in. Who ordered them?", "BOB", "1"),
)

#: Name of a result -> its value in a form that shows every bit.
Results = dict[str, str]


def python(folder: Path, *arguments: str) -> None:
    """Runs a Python command in a checkout, with the checkout's own packages."""
    path = os.pathsep.join(str(folder / part) for part in ("", "kernels"))
    # One thread: with two on a busy machine, two runs of one commit differed in the last bit (docs/LOG.md).
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{folder.name}: {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")


def results(folder: Path, steps: int) -> Results:
    """Returns what a checkout computes."""
    python(folder, "setup.py", "-q", "build_ext", "--inplace")
    found: Results = {}
    for number, (text, speaker, seed) in enumerate(LINES):
        wave = folder / f"line_{number}.wav"
        options = ("--speaker", speaker, "--seed", seed, "--quiet", "--output", str(wave))
        python(folder, "launch/speak.py", *options, "--", text)
        found[f"audio of line {number}"] = hashlib.sha256(wave.read_bytes()).hexdigest()
    python(
        folder,
        *("launch/prepare_data.py", "--corpus", "amazon_queen_excerpt"),
        *("--output", "data/amazon_queen_excerpt"),
    )
    recipe = ("--recipe", "quickstart", "--set", "corpus=data/amazon_queen_excerpt")
    python(
        folder,
        "launch/encode_corpus.py",
        *recipe,
        "--tokenizer",
        "csm/weights/tokenizer",
        "--output",
        "codes",
    )
    for shard in sorted(folder.glob("codes/*.safetensors")):
        for name, tensor in sorted(load_file(shard).items()):
            found[f"codes {name}"] = hashlib.sha256(tensor.contiguous().numpy().tobytes()).hexdigest()
    fields = (f"training.steps={steps}", "training.log_every=1")
    options = (*recipe, *(part for field in fields for part in ("--set", field)))
    python(folder, "launch/train.py", *options, "--codes", "codes", "--output", "run")
    for line in (folder / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        for name, value in values.items():
            if name.startswith("model/"):
                found[f"step {values['step']}, {values['split']}, {name}"] = repr(value)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", help="commit that the results are compared with")
    parser.add_argument("after", help="commit whose results must be the same")
    parser.add_argument(
        "--steps", type=int, default=4, help="optimizer steps of the run (default: %(default)s)"
    )
    options = parser.parse_args()
    found: list[Results] = []
    with tempfile.TemporaryDirectory() as parent:
        for name, commit in (("before", options.before), ("after", options.after)):
            folder = Path(parent, name)
            git = ["git", "-C", str(ROOT), "worktree"]
            subprocess.run([*git, "add", "-q", "--detach", str(folder), commit], check=True)
            try:
                found.append(results(folder, options.steps))
            finally:
                subprocess.run([*git, "remove", "--force", str(folder)], check=True)
    before, after = found
    common = sorted(before.keys() & after.keys())
    differing = [name for name in common if before[name] != after[name]]
    for name in differing:
        print(f"{name}: {before[name]} before, {after[name]} after")
    print(f"{len(common)} values in both, {len(differing)} differ; {len(before)} before, {len(after)} after")
    return 1 if differing or not common else 0


if __name__ == "__main__":
    sys.exit(main())
