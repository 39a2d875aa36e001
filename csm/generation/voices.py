"""Voices: what model and tokenizer need to speak as one person, and the file that keeps them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from csm.system.digests import require_intact
from csm.system.files import write_atomically

VOICES_FILE = "voices.json"


class Voice(NamedTuple):
    """One speaker's voice.

    Attributes:
        name: Speaker name, as in the corpus.
        number: Speaker index of the model.
        speaker: Speaker embedding of the tokenizer, float32 [1, E], unit length.
        emotion: Emotion embedding of the tokenizer, float32 [1, M]; None if unknown.
        consent: Statement of the speaker's consent to this voice; empty where none is on record.
    """

    name: str
    number: int
    speaker: Tensor
    emotion: Tensor | None = None
    consent: str = ""


def find_voice(voices: Mapping[str, Voice], name: str | None) -> Voice:
    """Returns the voice of a name; None takes the first voice.

    Raises:
        ValueError: The name is unknown.
    """
    if name is None:
        return voices[next(iter(voices))]
    if name not in voices:
        near = nearest_name(name, voices)
        hint = f"; did you mean {near}?" if near else ""
        raise ValueError(f"speaker is {name!r}: expected one of {', '.join(voices)}{hint}")
    return voices[name]


def nearest_name(name: str, names: Iterable[str]) -> str | None:
    """Returns the name that is spelled most like another one, whatever its case; None if none is near."""
    folded = {known.casefold(): known for known in names}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    return folded[near[0]] if near else None


def write_voices(folder: Path, voices: Mapping[str, Voice]) -> None:
    """Writes voices.json, one voice a line."""
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(_row(voice))}" for name, voice in voices.items())
    write_atomically(folder / VOICES_FILE, f"{{\n{lines}\n}}\n")


def read_voices(folder: Path) -> dict[str, Voice]:
    """Returns the voices of a folder by name, in the order of the file.

    Raises:
        ValueError: The file is damaged.
    """
    try:
        voices = {name: _voice(name, row) for name, row in _rows(folder).items()}
    except (KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise _damaged(folder, error) from error
    if not voices or any(v.speaker.ndim != 2 or not isinstance(v.number, int) for v in voices.values()):
        raise _damaged(folder, "a voice has no number or no vector")
    return voices


def known_numbers(folder: Path) -> dict[str, int]:
    """Returns the speaker indices of a folder's voices by name; empty for a folder without voices."""
    try:
        return {name: row["number"] for name, row in _rows(folder).items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, error) from error


def _rows(folder: Path) -> dict[str, dict[str, Any]]:
    path = folder / VOICES_FILE
    require_intact(path, "copy the voice's folder again")
    try:
        rows: dict[str, dict[str, Any]] = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except (ValueError, RecursionError) as error:
        raise _damaged(folder, error) from error
    return rows


def _damaged(folder: Path, error: object) -> ValueError:
    return ValueError(
        f"{folder / VOICES_FILE} is not a file of voices ({error}): write it again with csm export voice"
    )


def _voice(name: str, row: dict[str, Any]) -> Voice:
    emotion = torch.tensor([row["emotion"]]) if "emotion" in row else None
    return Voice(name, row["number"], torch.tensor([row["speaker"]]), emotion, str(row.get("consent", "")))


def _row(voice: Voice) -> dict[str, Any]:
    parts = {"speaker": voice.speaker, "emotion": voice.emotion}
    vectors = {
        name: [round(float(x), 5) for x in vector[0]] for name, vector in parts.items() if vector is not None
    }
    consent = {"consent": voice.consent} if voice.consent else {}
    return {"number": voice.number, **consent, **vectors}
