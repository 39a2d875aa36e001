"""What a run has said: the speech folder written by ``launch/generate_speech.py``, read for judging."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from csm.evaluation.judge import Clip

CONDITIONS = ("recording", "resynthesis", "generated")
SPEECH_FILE = "speech.jsonl"


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One spoken line or dialogue turn in up to three versions.

    ``audio`` names a file, relative to the speech folder, for each condition that should exist. ``group``
    is what the bootstrap resamples: the conversation of a line, the dialogue of a turn. Times in seconds.
    """

    id: str
    group: str
    turn: int
    speaker: str
    text: str
    audio: Mapping[str, str]
    conversation: str = ""
    dialogue: str = ""
    start: float | None = None
    end: float | None = None
    timing: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Dialogue:
    """A conversation of several voices, one channel a speaker, with its turns in order."""

    id: str
    speakers: tuple[str, ...]
    audio: Mapping[str, str]
    turns: tuple[Utterance, ...] = ()


@dataclass(frozen=True, kw_only=True)
class SpeechFolder:
    """Lines and dialogues of a run."""

    root: Path
    lines: tuple[Utterance, ...]
    dialogues: tuple[Dialogue, ...]

    @property
    def turns(self) -> tuple[Utterance, ...]:
        """The turns of all dialogues, in order."""
        return tuple(turn for dialogue in self.dialogues for turn in dialogue.turns)


def read_speech_folder(root: Path) -> SpeechFolder:
    """Reads ``speech.jsonl``. Audio files are not opened: one that is missing is a failure later.

    Raises:
        ValueError: no such file, a line that is not JSON, or one that lacks a field; names the line.
    """
    path = root / SPEECH_FILE
    if not path.is_file():
        raise ValueError(f"{path} does not exist; run launch/generate_speech.py for this run first")
    lines: list[Utterance] = []
    turns: dict[str, list[Utterance]] = {}
    dialogues: list[Mapping[str, Any]] = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            kind = row["kind"]
            if kind == "line":
                lines.append(_utterance(row))
            elif kind == "turn":
                turns.setdefault(str(row["dialogue"]), []).append(_utterance(row))
            elif kind == "dialogue":
                dialogues.append({"id": str(row["id"]), "speakers": row["speakers"], "audio": _audio(row)})
            else:
                raise ValueError(f"kind is {kind!r}; expected 'line', 'turn' or 'dialogue'")
        except KeyError as error:
            raise ValueError(f"{path}, line {number}: field {error} is missing") from error
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from error
    known = {row["id"] for row in dialogues}
    if orphans := sorted(set(turns) - known):
        raise ValueError(
            f"{path}: turns of {', '.join(orphans)}, but no line of kind 'dialogue' with that id"
        )
    return SpeechFolder(
        root=root,
        lines=tuple(lines),
        dialogues=tuple(
            Dialogue(
                id=row["id"],
                speakers=tuple(row["speakers"]),
                audio=row["audio"],
                turns=tuple(sorted(turns.get(row["id"], []), key=lambda turn: turn.turn)),
            )
            for row in dialogues
        ),
    )


def _audio(row: Mapping[str, Any]) -> dict[str, str]:
    return {condition: str(row[condition]) for condition in CONDITIONS if row.get(condition)}


def _utterance(row: Mapping[str, Any]) -> Utterance:
    dialogue = str(row.get("dialogue") or "")
    conversation = str(row.get("conversation") or dialogue)
    return Utterance(
        id=str(row["id"]),
        group=dialogue or conversation or str(row["id"]),
        turn=int(row.get("turn", 0)),
        speaker=str(row["speaker"]),
        text=str(row["text"]),
        audio=_audio(row),
        conversation=conversation,
        dialogue=dialogue,
        start=row.get("start"),
        end=row.get("end"),
        timing=row.get("timing"),
    )


def read_channels(path: Path) -> tuple[np.ndarray, int]:
    """All channels of a file at its own rate: float32 [C, S] and the rate in Hz.

    Raises:
        ValueError: missing, unreadable or empty; names the file.
    """
    try:
        samples, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"cannot read {path.name}: {type(error).__name__}") from error
    if len(samples) == 0:
        raise ValueError(f"{path.name} is empty")
    return np.ascontiguousarray(samples.T), int(sample_rate)


def clips_of(root: Path, utterances: Sequence[Utterance], condition: str) -> list[Clip]:
    """The utterances in one condition; a file that is missing or bad becomes the clip's reason.

    Utterances that were never meant to have this condition are left out only if none has it.
    """
    if not any(condition in utterance.audio for utterance in utterances):
        return []
    clips = []
    for utterance in utterances:
        waveform, sample_rate, reason = None, 16000, None
        if condition not in utterance.audio:
            reason = f"no {condition} was written"
        else:
            try:
                channels, sample_rate = read_channels(root / utterance.audio[condition])
                waveform = channels.mean(axis=0)
            except ValueError as error:
                reason = str(error)
        clips.append(
            Clip(
                id=utterance.id,
                conversation=utterance.group,
                speaker=utterance.speaker,
                text=utterance.text,
                waveform=waveform,
                sample_rate=sample_rate,
                reason=reason,
            )
        )
    return clips
