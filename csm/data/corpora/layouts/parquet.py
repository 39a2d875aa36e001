"""Hugging Face datasets in parquet with an Audio column: a struct of bytes and path.

Text is `text`, `transcript`, `transcription` or `sentence`; speaker `speaker`, `speaker_id` or `client_id`
(without one, the one speaker is named after the folder). Rows of one `conversation_id` are ordered by
`turn_id`; without it each row is a conversation of its own. `emotion` or `style`, `split`, `synthetic`, `id`
are kept. The split of a file named train-, validation- or test- holds for its rows.
"""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from csm.data.corpora.layouts.fields import speaker_of, text_of
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn
from csm.data.corpora.layouts.tree import Tree
from csm.data.manifest import SPLITS, file_safe
from csm.system.extras import missing_package

TEXT = ("text", "transcript", "transcription", "sentence")
SPEAKER = ("speaker", "speaker_id", "client_id")
CONVERSATION = ("conversation_id", "conversation", "dialog_id")
TURN = ("turn_id", "turn", "turn_index")
EMOTION = ("emotion", "style")
ROWS = 16  # read at a time: audio of one batch is in memory


def recognise(tree: Tree) -> str | None:
    """Counts the .parquet files."""
    found = tree.ending(".parquet")
    return f"{len(found)} .parquet" if found else None


def read(tree: Tree) -> Iterator[SourceConversation]:
    """Yields the conversations of every file."""
    for path in tree.ending(".parquet"):
        try:
            yield from _file(tree, path)
            tree.used.add(path)
        except ValueError as error:
            tree.reject_file(path, error)


def _file(tree: Tree, path: Path) -> Iterator[SourceConversation]:
    try:
        library: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ValueError(missing_package("pyarrow", "reading parquet")) from error
    try:
        table = library.ParquetFile(path)
        names = table.schema_arrow.names
    except (OSError, ValueError) as error:
        raise ValueError(f"is no parquet file ({error}); copy it again") from error
    audio = next((name for name in names if _is_audio(table.schema_arrow.field(name).type)), None)
    if audio is None:
        raise ValueError(f"columns are {', '.join(names)}: expected one of audio, a struct of bytes and path")
    if not set(TEXT) & set(names):
        raise ValueError(f"columns are {', '.join(names)}: expected one of {', '.join(TEXT)}")
    split = next((split for split in SPLITS if path.name.lower().startswith(split)), None)
    conversation = next((name for name in CONVERSATION if name in names), None)
    waiting = _counts(table, conversation) if conversation else Counter()
    opened: dict[str, tuple[SourceConversation, list]] = {}
    number = 0
    for batch in table.iter_batches(batch_size=ROWS):
        for row in batch.to_pylist():
            where = f"{tree.shown(path)}, row {number}"
            name = str(row[conversation]) if conversation else f"{path.stem}-{number:06d}"
            number += 1
            stated = _first(row, ("split",)) or split
            if stated not in (None, *SPLITS):
                raise ValueError(f"split is {stated!r}: expected one of {', '.join(SPLITS)}")
            made = SourceConversation(id=name, split=stated, synthetic=bool(row.get("synthetic")))
            opened.setdefault(name, (made, []))
            waiting[name] -= 1
            try:
                turn = _turn(tree, path, row, audio, number)
                opened[name][1].append((_place(_first(row, TURN), number), turn))
            except ValueError as error:
                tree.reject_turn(where, error)
            if waiting[name] <= 0:
                made, turns = opened.pop(name)
                made.turns = [turn for _, turn in sorted(turns, key=lambda entry: entry[0])]
                yield made


def _turn(tree: Tree, path: Path, row: Mapping[str, Any], audio: str, number: int) -> SourceTurn:
    text = text_of(_first(row, TEXT))
    speaker = path.parent.name if not set(SPEAKER) & set(row) else speaker_of(_first(row, SPEAKER))
    identity = row.get("id")
    return SourceTurn(
        speaker=speaker,
        text=text,
        audio=_sound(tree, path, row[audio] or {}, number),
        emotion=_first(row, EMOTION) or None,
        id=None if identity is None else str(identity),
    )


def _sound(tree: Tree, path: Path, sound: Mapping[str, Any], number: int) -> Path:
    """Returns the file of a row's audio; bytes become a file in the scratch folder."""
    if not sound.get("bytes"):
        return tree.find(text_of(sound.get("path"), "path of the audio"), beside=path)
    suffix = Path(sound.get("path") or "x.wav").suffix or ".wav"
    target = tree.scratch / f"{file_safe(path.stem)}-{number:08d}{suffix}"
    target.write_bytes(sound["bytes"])
    return target


def _counts(table: Any, conversation: str) -> Counter[str]:
    return Counter(
        str(value.as_py())
        for batch in table.iter_batches(columns=[conversation])
        for value in batch.column(0)
    )


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if name in row), None)


def _place(value: Any, number: int) -> tuple[float, int]:
    try:
        return float(value), number
    except (TypeError, ValueError):
        return 0.0, number


def _is_audio(kind: Any) -> bool:
    fields = (
        {kind.field(index).name for index in range(kind.num_fields)}
        if str(kind).startswith("struct")
        else set()
    )
    return {"bytes", "path"} <= fields


LAYOUT = Layout(
    name="parquet",
    looks_for="a .parquet with an Audio column and text",
    recognise=recognise,
    read=read,
)
