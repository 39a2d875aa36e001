"""The files of a run's folder that every step shares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple, Protocol

from csm import config as config_files
from csm.generation.voice_folder import PACKAGED, packaged_voice
from csm.recipes.run_config import RunConfig
from csm.system.digests import record_digests, sha256_of
from csm.system.files import move_files
from csm.system.log import log
from csm.tokenizer.semantic.semantic_heads import SemanticHeads
from csm.training.run_folder import is_complete

#: Folder in csm/weights of the packaged tokenizer at 24 kHz.
WIDEBAND_TOKENIZER = "wideband/tokenizer"
CONFIG, WEIGHTS = PRETRAINED_FILES = ("config.json", "model.safetensors")


class Pretrained(Protocol):
    """What can be saved for use without training code."""

    def save_pretrained(self, folder: Path | str) -> None: ...


class WithHeads(NamedTuple):
    """A tokenizer and the heads that read phones and letters from its semantic codes, saved side by side."""

    tokenizer: Pretrained
    heads: SemanticHeads

    def save_pretrained(self, folder: Path | str) -> None:
        """Writes both; makes the folder."""
        self.tokenizer.save_pretrained(folder)
        self.heads.save(Path(folder))


def save_whole(module: Pretrained, folder: Path) -> list[Path]:
    """Saves so that the folder's files appear whole, the weights last; returns their paths."""
    partial = folder / "pretrained.part"
    module.save_pretrained(partial)
    record_digests(partial, [path.name for path in partial.iterdir() if path.is_file()])
    names = sorted(path.name for path in partial.iterdir())
    move_files(partial, folder, last=WEIGHTS)
    return [folder / name for name in names]


def found_complete(output: Path, steps: int) -> bool:
    """Returns whether a run of `steps` steps is complete; logs a line where it is."""
    complete = is_complete(output, steps)
    if complete:
        log.info("%s: this run is complete; nothing to do", output)
    return complete


def start_folder(start: str, part: str) -> Path:
    """Returns the folder of a field of the recipe that names a start; "packaged" is `part` of csm/weights."""
    if start == "packaged":
        return PACKAGED / part
    return packaged_voice(start) if part == "voice" else Path(start)


def start_digests(field: str, start: str) -> dict[str, str]:
    """Returns the SHA-256 of the weights that `field` starts from, by name; empty for none and packaged ones.

    Args:
        field: Name of the field, such as "model_start".
        start: Its value: "scratch", "packaged", empty, or a folder.
    """
    if start in ("", "scratch", "packaged"):
        return {}
    return {f"{field}/{path.name}": sha256_of(path) for path in sorted(Path(start).glob("*.safetensors"))}


def load_run(folder: Path) -> RunConfig:
    """Returns the configuration that a model run was trained with.

    Raises:
        ValueError: No run in the folder.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise ValueError(
            f"no run in {folder} (run.json expected): train one with launch/train.py --output {folder}"
        )
    return config_files.from_dict(RunConfig, json.loads(path.read_text(encoding="utf-8"))["config"]["run"])


def tokenizer_folder(run: Path) -> Path:
    """Returns the folder of the tokenizer of a model run: its own, else the one that run.json names."""
    own = run / "tokenizer"
    return own if (own / WEIGHTS).is_file() else Path(_inputs(run).get("tokenizer", own))


def codes_folder(run: Path) -> Path:
    """Returns the folder of the codes that a model run was trained on: its own, else the one in run.json."""
    own = run / "codes"
    return own if own.is_dir() else Path(_inputs(run).get("codes", own))


def _inputs(run: Path) -> dict[str, str]:
    inputs: dict[str, str] = json.loads((run / "run.json").read_text(encoding="utf-8")).get("inputs", {})
    return inputs
