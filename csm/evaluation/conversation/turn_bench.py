"""TurnBench (Sesame and others 2026): its parquet files, and a predictions.json that its scorer takes.

Its tasks are the ends of turns and floor-taking interruptions of two people, each on a channel of their own.
The predictions are those of the listener that the live conversation uses. The scores are given by its own
program, `python -m turnbench.score predictions.json`: they are comparable across one version of it alone.
"""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import soundfile
import torch
from torch import Tensor

from csm.audio.resampling import resample
from csm.conversation.listener import RATE, WINDOW, Heard
from csm.evaluation.conversation.recorded_listener import RecordedListener
from csm.system.extras import missing_package
from csm.system.files import write_atomically

SPEAKERS = ("speaker_1", "speaker_2")


class Recording(NamedTuple):
    """A conversation: its id, and float32 [S] of both speakers at 16 kHz."""

    name: str
    channels: tuple[Tensor, Tensor]


class SpeakerEvents(NamedTuple):
    """Times in seconds at which it was certain that a turn has ended, or that the speaker took the floor."""

    eot: list[float]
    interruption: list[float]


def read_recordings(folder: Path) -> Iterator[Recording]:
    """Yields the conversations of the parquet files of a folder, one in memory at a time.

    Raises:
        ValueError: pyarrow is missing, there are no files, or a column is.
    """
    try:
        library: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ValueError(missing_package("pyarrow", "reading parquet")) from error
    paths = sorted(folder.rglob("*.parquet"))
    if not paths:
        raise ValueError(
            f"no parquet files in {folder}: expected the download of mundo-ai/turn-benchmark-dev"
        )
    columns = ["conversation_id", *(f"{name}_audio" for name in SPEAKERS)]
    for path in paths:
        file = library.ParquetFile(path)
        if missing := [name for name in columns if name not in file.schema_arrow.names]:
            raise ValueError(f"{path} lacks the columns {', '.join(missing)}: expected TurnBench's")
        for batch in file.iter_batches(batch_size=1, columns=columns):
            for row in batch.to_pylist():
                first, second = (_audio(row, f"{name}_audio", path) for name in SPEAKERS)
                yield Recording(str(row["conversation_id"]), (first, second))


def _audio(row: Mapping[str, Any], column: str, path: Path) -> Tensor:
    """Returns the samples of a column: bytes of a file, or the dataset's {"bytes": ...}."""
    value = row[column]
    data = value.get("bytes") if isinstance(value, dict) else value
    try:
        samples, rate = soundfile.read(io.BytesIO(data or b""), dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, TypeError) as error:
        name = row["conversation_id"]
        raise ValueError(f"{path}: {column} of conversation {name} is no audio ({error})") from error
    return resample(torch.from_numpy(samples.mean(axis=1)), rate, RATE)


def predicted(recording: Recording, make: Callable[[], RecordedListener]) -> dict[str, SpeakerEvents]:
    """Listens to both speakers at once and returns the events of each.

    An interruption is speech that began while the other spoke and outlasts a backchannel: the rule by which
    the live conversation stops. Each time is when the rule is met, so all audio it depends on lies before it.

    Args:
        recording: The conversation.
        make: Makes a listener.
    """
    listeners = [make(), make()]
    events = [SpeakerEvents([], []), SpeakerEvents([], [])]
    over = [False, False]
    length = max(map(len, recording.channels))
    for start in range(0, length, WINDOW):
        for who, listener in enumerate(listeners):
            window = recording.channels[who][start : start + WINDOW]
            for change in listener.push(window):
                if change.change == "onset":
                    over[who] = listeners[1 - who].in_turn
                _note(change, events[who], over[who])
    return dict(zip(SPEAKERS, events, strict=True))


def _note(change: Heard, events: SpeakerEvents, over: bool) -> None:
    if change.change == "ended":
        events.eot.append(round(change.at, 3))
    elif change.change == "long" and over:
        events.interruption.append(round(change.at, 3))


def write_predictions(
    path: Path, predictions: Mapping[str, Mapping[str, SpeakerEvents]]
) -> Sequence[Mapping[str, Any]]:
    """Writes predictions.json of schema 1; returns its rows.

    Args:
        path: File to write.
        predictions: By conversation and speaker.
    """
    rows = [
        {"conversation_id": name, **{speaker: events._asdict() for speaker, events in sides.items()}}
        for name, sides in predictions.items()
    ]
    text = json.dumps({"schema_version": 1, "predictions": rows}, indent=1)
    write_atomically(path, text + "\n")
    return rows
