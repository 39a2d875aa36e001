"""Speech of a talker as WAV files beside a jsonl, so that a stopped evaluation resumes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from csm import config as config_files
from csm.audio.files import write_audio
from csm.data.manifest import MANIFEST_NAME, Corpus
from csm.evaluation.core.clips import Clip
from csm.evaluation.subjects.speech_folder import read_channels
from csm.generation.speech_rows import require_same_origin, write_rows
from csm.generation.talker import Talker
from csm.network.conversation_network import ConversationNetwork
from csm.system.files import file_sha256
from csm.tokenizer.opening import VoiceTokenizer

SPOKEN_FILE = "spoken.jsonl"
Row = dict[str, Any]


class NamedLine(Protocol):
    """A line that is spoken: its id, unique in a folder of speech, its group, and who says what."""

    @property
    def id(self) -> str: ...

    @property
    def group(self) -> str: ...

    @property
    def conversation(self) -> str: ...

    @property
    def speaker(self) -> str: ...

    @property
    def text(self) -> str: ...


class GeneratedSpeech:
    """A folder of generated speech: one WAV and one row for each line in each condition.

    Args:
        folder: Folder, made if missing; what is in it stays.
        origin: Identity of the speech, as JSON values; see `origin_of`.

    Raises:
        ValueError: The folder holds speech of another origin, or rows that cannot be read.
    """

    def __init__(self, folder: Path, origin: Mapping[str, Any]) -> None:
        require_same_origin(folder, origin)
        self.folder = folder
        self._rows: dict[tuple[str, str], Row] = {}
        path = folder / SPOKEN_FILE
        if path.is_file():
            try:
                rows = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
                self._rows = {(row["id"], row["condition"]): row for row in rows}
            except (ValueError, KeyError, TypeError) as error:
                raise ValueError(f"{path} cannot be read ({error}): delete {folder}") from error

    def has(self, line: NamedLine, condition: str) -> bool:
        """Returns whether the line was spoken in this condition, or could not be spoken."""
        row = self._rows.get((line.id, condition))
        return row is not None and (row["audio"] is None or (self.folder / row["audio"]).is_file())

    def keep(
        self,
        line: NamedLine,
        condition: str,
        waveform: Tensor | None,
        sample_rate: int,
        facts: Mapping[str, Any],
    ) -> None:
        """Writes a line's WAV, then its row.

        Args:
            line, condition: Which line in which condition.
            waveform: Speech [1, S]; None where it could not be spoken.
            sample_rate: Rate in Hz.
            facts: Further values of the row, as JSON values; "reason" where there is no waveform.
        """
        name = None if waveform is None else f"{line.id}.{condition}.wav"
        if waveform is not None:
            write_audio(self.folder / str(name), waveform, sample_rate)
        self._rows[line.id, condition] = {
            "id": line.id,
            "condition": condition,
            "group": line.group,
            "speaker": line.speaker,
            "text": line.text,
            "audio": name,
            **facts,
        }
        write_rows(self.folder / SPOKEN_FILE, list(self._rows.values()))

    def row(self, line: NamedLine, condition: str) -> Row:
        """Returns the row of a line."""
        return self._rows[line.id, condition]

    def clips(self, lines: Sequence[NamedLine], condition: str) -> tuple[Clip, ...]:
        """Reads the lines in one condition; one that is missing or bad carries the reason."""
        return tuple(self._clip(line, place, self.row(line, condition)) for place, line in enumerate(lines))

    def _clip(self, line: NamedLine, place: int, row: Row) -> Clip:
        clip = Clip(
            id=line.id,
            conversation=line.conversation,
            speaker=line.speaker,
            text=line.text,
            turn=place,
            reason=row.get("reason"),
            facts=row,
        )
        if row["audio"] is None:
            return clip
        try:
            channels, sample_rate = read_channels(self.folder / row["audio"])
        except ValueError as error:
            return replace(clip, reason=str(error))
        return replace(clip, waveform=channels[0], sample_rate=sample_rate)


def talker_origin(talker: Talker) -> dict[str, Any]:
    """Returns what a talker's speech depends on, as JSON values."""
    voices = hashlib.sha256()
    for name, voice in talker.voices.items():
        voices.update(f"{name}:{voice.number}:".encode())
        for part in (voice.speaker, voice.emotion):
            voices.update(b"none" if part is None else _bytes_of(part))
    return {
        "model_sha256": sha256_of_module(talker.model),
        "tokenizer_sha256": sha256_of_module(talker.tokenizer),
        "voices_sha256": voices.hexdigest(),
        "sampling": config_files.to_dict(talker.sampling),
    }


def origin_of(talker: Talker, corpus: Corpus, lines: int, seed: int) -> dict[str, Any]:
    """Returns everything that decides how a line sounds, as JSON values.

    Args:
        talker: The talker.
        corpus: Corpus of the lines.
        lines: Most lines of a group, which decide which lines are spoken and with which seed.
        seed: Seed of the evaluation.
    """
    return {
        **talker_origin(talker),
        "corpus": corpus.info.get("name", corpus.root.name),
        "manifest_sha256": file_sha256(corpus.root / MANIFEST_NAME),
        "lines": lines,
        "seed": seed,
    }


def sha256_of_module(module: ConversationNetwork | VoiceTokenizer) -> str:
    """Returns the hex digest of a module's config and weights, wherever they were read from."""
    config = config_files.to_dict(module.config)
    config.pop("text", None)  # the path of a text codec, which may lie elsewhere tomorrow
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name}:{tuple(value.shape)}:{value.dtype}:".encode())
        digest.update(_bytes_of(value))
    return digest.hexdigest()


def _bytes_of(value: Tensor) -> bytes:
    flat = value.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().tobytes()
