"""Builds a wheel, installs it in an empty environment, and speaks, prepares, trains and generates with it.

    python tests/wheel.py                                   downloads 3 GB, then 7 GB of disk
    python tests/wheel.py --wheel dist/csm_speech-....whl   installs and tries this one
    python tests/wheel.py --environment FOLDER              tries the wheel that is installed there

The commands run in a folder outside the repository without PYTHONPATH: what they import is the wheel's.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RECIPE = ("--recipe", "tiny", "--set", "corpus=corpus")
COMMANDS = (
    ("--version",),
    ("speak", "You and whose army?", "--speaker", "FAYE", "--output", "line.wav", "--quiet"),
    ("prepare", "--corpus", "amazon_queen_excerpt", "--output", "corpus"),
    ("train-tokenizer", *RECIPE, "--output", "run/tokenizer"),
    ("encode", *RECIPE, "--tokenizer", "run/tokenizer", "--output", "run/codes"),
    ("train", *RECIPE, "--output", "run"),
    ("generate", "--run", "run"),
)
WRITTEN = ("line.wav", "corpus/manifest.jsonl", "run/complete.json", "run/model.safetensors")


def run(*command: str | Path, folder: Path | None = None) -> None:
    """Runs a command and ends this process with its status where it fails."""
    words = [str(word) for word in command]
    print("$", *words, flush=True)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if status := subprocess.run(words, cwd=folder, env=environment).returncode:
        sys.exit(status)


def build(folder: Path) -> Path:
    """Returns a wheel of this tree."""
    run(sys.executable, "-m", "pip", "wheel", ROOT, "--no-deps", "--quiet", "--wheel-dir", folder)
    (wheel,) = folder.glob("csm_speech-*.whl")
    return wheel


def install(wheel: Path, environment: Path) -> None:
    """Installs the wheel with its extra `train` in a new environment."""
    run(sys.executable, "-m", "venv", environment)
    pip = (environment / "bin/python", "-m", "pip", "install", "--quiet", "--constraint")
    run(*pip, ROOT / "constraints.txt", f"{wheel}[train]")


def try_commands(environment: Path, folder: Path, commands: Sequence[Sequence[str]] = COMMANDS) -> None:
    """Runs the commands in a folder outside the repository."""
    folder.mkdir()
    program = "import csm, sys; sys.exit(not csm.__file__.startswith(sys.argv[1]))"
    run(environment / "bin/python", "-c", program, environment, folder=folder)
    for words in commands:
        run(environment / "bin/csm", *words, folder=folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--wheel", type=Path, help="wheel to install; built where none is given")
    parser.add_argument("--environment", type=Path, help="environment in which csm is installed already")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="csm_wheel_") as name:
        folder, environment = Path(name), options.environment
        if environment is None:
            environment = folder / "environment"
            install((options.wheel or build(folder)).resolve(), environment)
        try_commands(environment.resolve(), folder / "elsewhere")
        missing = [path for path in WRITTEN if not (folder / "elsewhere" / path).is_file()]
    sys.exit(f"not written: {', '.join(missing)}" if missing else None)


if __name__ == "__main__":
    main()
