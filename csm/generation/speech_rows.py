"""Rows of a folder of speech, and the origin that all speech in it has in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from csm.system.files import write_atomically

SPEECH_FILE, ORIGIN_FILE = "speech.jsonl", "origin.json"

Row = dict[str, Any]


def require_same_origin(output: Path, origin: Mapping[str, Any]) -> None:
    """Checks that a folder holds speech of this origin, and writes the origin into a new folder.

    Raises:
        ValueError: The folder holds speech of another origin; lists the differing fields.
    """
    path = output / ORIGIN_FILE
    here = json.loads(json.dumps(dict(origin)))
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        differing = [key for key in sorted({*here, *there}) if here.get(key) != there.get(key)]
        if differing:
            listed = ", ".join(f"{key} ({there.get(key)} there, {here.get(key)} here)" for key in differing)
            raise ValueError(
                f"{output} holds other speech: {listed} differ; choose another --output or delete it"
            )
        return
    if (output / SPEECH_FILE).is_file():
        raise ValueError(
            f"{output} has {SPEECH_FILE} but no {ORIGIN_FILE}: choose another --output or delete it"
        )
    output.mkdir(parents=True, exist_ok=True)
    write_atomically(path, json.dumps(here, indent=1, ensure_ascii=False) + "\n")


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes one JSON object a line, whole or not at all."""
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_rows(path: Path) -> list[Row]:
    """Returns the rows that `write_rows` wrote."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
