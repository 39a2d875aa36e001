"""Writes a Hugging Face dataset: data/SPLIT-00000-of-00001.parquet, a row a turn, with an Audio column.

`datasets.load_dataset("parquet", data_dir=...)` reads it. A conversation lies in one file, unless it has more
turns than a file holds. Audio is the turn's own part of its channel, as FLAC of 16 bits at its own rate;
`words` counts from its beginning. `start` and `end` are where the turn lies in the recording of its
conversation.
"""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from csm.audio.files import read_audio, sample_rate_of
from csm.data.manifest import SPLITS, Corpus, Turn
from csm.data.word_times import Word, read_words
from csm.system.extras import missing_package
from csm.system.log import progress

ROWS_PER_FILE, ROWS_PER_GROUP = 5_000, 100
STRINGS = ("id", "conversation_id", "speaker", "text", "emotion")
FLAGS = ("overlap", "backchannel", "synthetic")
TIMES = ("start", "end")


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
    schema, words = _schema(arrow), read_words(corpus.root)
    with progress("parquet", len(corpus.turns()), unit="turn") as counter:
        for split in SPLITS:
            turns = corpus.turns(split)
            starts = _starts(corpus.contents.turns[corpus.numbers_of(split)].tolist())
            files = len(starts) - 1
            for number, (first, end) in enumerate(pairwise(starts)):
                part = turns[first:end]
                path = folder / "data" / f"{split}-{number:05d}-of-{files:05d}.parquet"
                with parquet.ParquetWriter(path, schema) as writer:
                    for rows in _groups(corpus, part, words):
                        writer.write_table(arrow.Table.from_pylist(rows, schema=schema))
                        counter.update(len(rows))
    return []


def _starts(sizes: Iterable[int]) -> list[int]:
    """Returns the first turn of each file and the number of turns.

    Args:
        sizes: Turns of each conversation, in order.
    """
    starts, end = [0], 0
    for size in sizes:
        if end > starts[-1] and end + size - starts[-1] > ROWS_PER_FILE:
            starts.append(end)
        end += size
        while end - starts[-1] > ROWS_PER_FILE:  # of a conversation of more turns than a file holds
            starts.append(starts[-1] + ROWS_PER_FILE)
    return [*starts, end] if end > starts[-1] else starts


def _groups(
    corpus: Corpus, turns: Sequence[Turn], words: dict[str, tuple[Word, ...]]
) -> Iterator[list[dict[str, Any]]]:
    for first in range(0, len(turns), ROWS_PER_GROUP):
        group = turns[first : first + ROWS_PER_GROUP]
        yield [_row(corpus, turn, words.get(turn.id, ())) for turn in group]


def _row(corpus: Corpus, turn: Turn, words: tuple[Word, ...]) -> dict[str, Any]:
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
        **{name: getattr(turn, name) for name in (*FLAGS, *TIMES)},
        "words": [_moved(word, turn) for word in words],
        "audio": {"bytes": file.getvalue(), "path": f"{turn.id}.flac"},
    }


def _moved(word: Word, turn: Turn) -> dict[str, Any]:
    """Returns a word with its times from the beginning of the turn."""
    times = (word.start, word.end)
    start, end = (round(min(max(time, turn.start), turn.end) - turn.start, 6) for time in times)
    return {"text": word.text, "start": start, "end": end}


def _schema(arrow: Any) -> Any:
    """Returns the columns, with the note by which `datasets` takes `audio` for audio."""
    kinds = {
        **{name: ("string", arrow.string()) for name in STRINGS},
        "turn_id": ("int64", arrow.int64()),
        **{name: ("bool", arrow.bool_()) for name in FLAGS},
        **{name: ("float64", arrow.float64()) for name in TIMES},
    }
    word = {"text": ("string", arrow.string()), **{name: kinds[name] for name in TIMES}}
    features: dict[str, Any] = _values(kinds)
    features |= {"words": [_values(word)], "audio": {"_type": "Audio"}}
    words = arrow.list_(arrow.struct([(name, column) for name, (_, column) in word.items()]))
    audio = arrow.struct([("bytes", arrow.binary()), ("path", arrow.string())])
    columns = [*((name, column) for name, (_, column) in kinds.items()), ("words", words), ("audio", audio)]
    note = json.dumps({"info": {"features": features}})
    return arrow.schema(columns, metadata={"huggingface": note})


def _values(kinds: dict[str, tuple[str, Any]]) -> dict[str, dict[str, str]]:
    return {name: {"dtype": kind, "_type": "Value"} for name, (kind, _) in kinds.items()}
