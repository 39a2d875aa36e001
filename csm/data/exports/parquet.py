"""Writes a Hugging Face dataset: data/SPLIT-00000-of-00001.parquet, a row a turn, with an Audio column.

`datasets.load_dataset("parquet", data_dir=...)` reads it. Audio is the turn's own part of its channel, as
FLAC of 16 bits at its own rate.
"""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from csm.audio.files import read_audio, sample_rate_of
from csm.data.manifest import SPLITS, Corpus, Turn
from csm.system.extras import missing_package
from csm.system.log import progress

ROWS_PER_FILE, ROWS_PER_GROUP = 5_000, 100
STRINGS = ("id", "conversation_id", "speaker", "text", "emotion")
FLAGS = ("overlap", "backchannel", "synthetic")


def write_parquet(corpus: Corpus, folder: Path) -> list[tuple[str, str]]:
    """Writes the corpus into an existing folder.

    Returns:
        (conversation, reason) of what the layout cannot hold: nothing.

    Raises:
        ValueError: pyarrow is missing.
    """
    try:
        arrow: Any = importlib.import_module("pyarrow")
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ValueError(missing_package("pyarrow", "writing parquet")) from error
    (folder / "data").mkdir()
    schema = _schema(arrow)
    with progress("parquet", len(corpus.turns()), unit="turn") as counter:
        for split in SPLITS:
            turns = corpus.turns(split)
            files = -(-len(turns) // ROWS_PER_FILE)
            for number in range(files):
                part = turns[number * ROWS_PER_FILE : (number + 1) * ROWS_PER_FILE]
                path = folder / "data" / f"{split}-{number:05d}-of-{files:05d}.parquet"
                with parquet.ParquetWriter(path, schema) as writer:
                    for rows in _groups(corpus, part):
                        writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
                        counter.update(len(rows))
    return []


def _groups(corpus: Corpus, turns: list[Turn]) -> Iterator[list[dict[str, Any]]]:
    for first in range(0, len(turns), ROWS_PER_GROUP):
        yield [_row(corpus, turn) for turn in turns[first : first + ROWS_PER_GROUP]]


def _row(corpus: Corpus, turn: Turn) -> dict[str, Any]:
    path = corpus.root / turn.audio
    rate = sample_rate_of(path)
    sound = read_audio(path, sample_rate=rate, start=turn.start, end=turn.end, channel=turn.channel)
    file = io.BytesIO()
    samples = np.rint(sound[0].numpy() * 32768).clip(-32768, 32767).astype(np.int16)
    soundfile.write(file, samples, rate, format="FLAC", subtype="PCM_16")
    return {
        "id": turn.id,
        "conversation_id": turn.conversation,
        "turn_id": turn.index,
        "speaker": turn.speaker,
        "text": turn.text,
        "emotion": turn.emotion,
        **{name: getattr(turn, name) for name in FLAGS},
        "audio": {"bytes": file.getvalue(), "path": f"{turn.id}.flac"},
    }


def _schema(arrow: Any) -> Any:
    """Returns the columns, with the note by which `datasets` takes `audio` for audio."""
    kinds = {
        **{name: ("string", arrow.string()) for name in STRINGS},
        "turn_id": ("int64", arrow.int64()),
        **{name: ("bool", arrow.bool_()) for name in FLAGS},
    }
    features: dict[str, Any] = {name: {"dtype": kind, "_type": "Value"} for name, (kind, _) in kinds.items()}
    features["audio"] = {"_type": "Audio"}
    audio = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    columns = [*((name, column) for name, (_, column) in kinds.items()), ("audio", audio)]
    note = json.dumps({"info": {"features": features}})
    return arrow.schema(columns, metadata={"huggingface": note})
