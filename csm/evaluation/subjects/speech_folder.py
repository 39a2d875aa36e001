"""The speech folder of a run: its lines and dialogues as recorded, resynthesised and generated."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from csm.evaluation.core.clips import Clip

CONDITIONS = ("recording", "resynthesis", "generated")
SPEECH_FILE = "speech.jsonl"


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One spoken line or dialogue turn in up to three conditions.

    Attributes:
        id: Unique id.
        resampled: Id of what the bootstrap resamples: the conversation of a line, the dialogue of a turn.
        turn: Number of the turn in its conversation or dialogue.
        speaker, text: Who says what.
        audio: File, relative to the speech folder, of each condition that should exist.
        conversation, dialogue: Where it stands; empty where it does not.
        start, end: Seconds in the dialogue.
        timing: Times of the generator in seconds.
    """

    id: str
    resampled: str
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
    """A conversation of several speakers.

    Attributes:
        id: Unique id.
        speakers: Names in the order of the channels.
        audio: File of each condition, one channel for each speaker.
        turns: Turns in order.
        shared_recording: Whether the speakers were recorded together, so that the recording's gaps are real;
            false where it is single clips laid end to end.
    """

    id: str
    speakers: tuple[str, ...]
    audio: Mapping[str, str]
    turns: tuple[Utterance, ...] = ()
    shared_recording: bool = False


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
    """Reads speech.jsonl; audio files are not opened: one that is missing becomes a failure later.

    Raises:
        ValueError: There is no such file, or a line is no JSON or lacks a field; the message names the line.
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
                shared = bool(row.get("shared_recording", False))
                dialogues.append(
                    {
                        "id": str(row["id"]),
                        "speakers": tuple(row["speakers"]),
                        "audio": _audio(row),
                        "shared_recording": shared,
                    }
                )
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
            Dialogue(**row, turns=tuple(sorted(turns.get(row["id"], []), key=lambda turn: turn.turn)))
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
        resampled=dialogue or conversation or str(row["id"]),
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
    """Reads all channels of a file at its own rate: float32 [C, S] and the rate in Hz.

    Raises:
        ValueError: The file is missing, unreadable or empty; the message names it.
    """
    try:
        samples, sample_rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"cannot read {path.name}: {type(error).__name__}") from error
    if len(samples) == 0:
        raise ValueError(f"{path.name} is empty")
    return np.ascontiguousarray(samples.T), int(sample_rate)


def utterance_clips(root: Path, utterances: Sequence[Utterance], condition: str) -> tuple[Clip, ...]:
    """Reads utterances in one condition; a file that is missing or bad becomes the clip's reason.

    Returns:
        A clip for each utterance; none where no utterance was meant to have this condition.
    """
    if not any(condition in utterance.audio for utterance in utterances):
        return ()
    clips = []
    for utterance in utterances:
        clip = Clip(
            id=utterance.id,
            conversation=utterance.resampled,
            speaker=utterance.speaker,
            text=utterance.text,
            turn=utterance.turn,
            facts={"timing": utterance.timing} if utterance.timing else {},
        )
        clip = with_audio(clip, root, utterance.audio, condition)
        clips.append(clip if clip.waveform is None else replace(clip, waveform=clip.waveform.mean(axis=0)))
    return tuple(clips)


def dialogue_clips(root: Path, dialogues: Sequence[Dialogue], condition: str) -> tuple[Clip, ...]:
    """Reads whole dialogues in one condition, with a channel for each speaker."""
    if not any(condition in dialogue.audio for dialogue in dialogues):
        return ()
    clips = (
        Clip(id=one.id, conversation=one.id, facts={"shared_recording": one.shared_recording})
        for one in dialogues
    )
    return tuple(
        with_audio(clip, root, one.audio, condition) for clip, one in zip(clips, dialogues, strict=True)
    )


def with_audio(clip: Clip, root: Path, audio: Mapping[str, str], condition: str) -> Clip:
    """Returns the clip with its waveform [C, S], or with the reason why there is none."""
    if condition not in audio:
        return replace(clip, reason=f"no {condition} was written")
    try:
        channels, sample_rate = read_channels(root / audio[condition])
    except ValueError as error:
        return replace(clip, reason=str(error))
    return replace(clip, waveform=channels, sample_rate=sample_rate)
