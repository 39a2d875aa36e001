"""Hugging Face datasets in parquet with an Audio column: a struct of bytes and path.

Text is `text`, `transcript`, `transcription` or `sentence`; speaker `speaker`, `speaker_id` or `client_id`
(without one, the one speaker is named after the folder). Rows of one `conversation_id` are ordered by
`turn_id`; without it each row is a conversation of its own. `emotion` or `style`, `split`, `synthetic`, `id`,
`overlap`, `backchannel` and `words` (text, start and end in the row's audio) are kept. The split of a file
named train-, validation- or test- holds for its rows.
"""

from __future__ import annotations

import importlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from csm.data.corpora.layouts.fields import label_of, seconds_of, speaker_of, text_of
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn
from csm.data.corpora.layouts.tree import MALFORMED, Tree
from csm.data.corpora.source_files import AUDIO_SUFFIXES
from csm.data.manifest import SPLITS, file_safe
from csm.data.word_times import Word
from csm.system.extras import missing_package

TEXT = ("text", "transcript", "transcription", "sentence")
SPEAKER = ("speaker", "speaker_id", "client_id")
CONVERSATION = ("conversation_id", "conversation", "dialog_id")
TURN = ("turn_id", "turn", "turn_index")
EMOTION = ("emotion", "style")
ROWS = 16  # read at a time: audio of one batch is in memory
# What pyarrow raises of a damaged file; its own kinds are kinds of these.
UNREADABLE = (*MALFORMED, OSError, RuntimeError, MemoryError)


def recognise(tree: Tree) -> str | None:
    """Counts the .parquet files."""
    found = tree.ending(".parquet")
    return f"{len(found)} .parquet" if found else None


def read(tree: Tree) -> Iterator[SourceConversation]:
    """Yields the conversations of every file."""
    for path in tree.ending(".parquet"):
        tree.used.add(path)
        yield from tree.guarded(path, _file(tree, path))


def _file(tree: Tree, path: Path) -> Iterator[SourceConversation]:
    try:
        library: Any = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ValueError(missing_package("pyarrow", "reading parquet")) from error
    try:
        table = library.ParquetFile(path)
        names = table.schema_arrow.names
    except UNREADABLE as error:
        raise ValueError(f"is no parquet file ({error}); copy it again") from error
    audio = next((name for name in names if _is_audio(table.schema_arrow.field(name).type)), None)
    if audio is None:
        raise ValueError(f"columns are {', '.join(names)}: expected one of audio, a struct of bytes and path")
    if not set(TEXT) & set(names):
        raise ValueError(f"columns are {', '.join(names)}: expected one of {', '.join(TEXT)}")
    split = next((split for split in SPLITS if path.name.lower().startswith(split)), None)
    conversation = next((name for name in CONVERSATION if name in names), None)
    waiting = _counts(table, conversation) if conversation else None
    opened: dict[str, tuple[SourceConversation, list]] = {}
    for number, row in _rows(tree, path, table):
        name = str(row.get(conversation)) if conversation else f"{path.stem}-{number:06d}"
        if waiting is not None:
            waiting[name] -= 1
        try:
            stated = _split(row, split)
            turn = _turn(tree, path, row, audio, number)
            known = speaker_of(row[conversation], "conversation") if conversation else name
            made = SourceConversation(id=known, split=stated, synthetic=_flag(row, "synthetic"))
            opened.setdefault(name, (made, []))[1].append((_place(row, number), turn))
        except MALFORMED as error:
            tree.reject_turn(f"{tree.shown(path)}, row {number}", error)
        if name in opened and (conversation is None or (waiting is not None and waiting[name] <= 0)):
            yield _ordered(*opened.pop(name))
    for made, turns in opened.values():  # rows of theirs could not be read
        yield _ordered(made, turns)


def _ordered(
    made: SourceConversation, turns: list[tuple[tuple[float, int], SourceTurn]]
) -> SourceConversation:
    made.turns = [turn for _, turn in sorted(turns, key=lambda entry: entry[0])]
    return made


def _rows(tree: Tree, path: Path, table: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields the number of a row and the row; a group of rows that cannot be read is left out."""
    first = 0
    for group in range(table.num_row_groups):
        held, number = table.metadata.row_group(group).num_rows, first
        try:
            for batch in table.iter_batches(batch_size=ROWS, row_groups=[group]):
                for place in range(batch.num_rows):
                    where = f"{tree.shown(path)}, row {number}"
                    try:
                        yield number, batch.slice(place, 1).to_pylist()[0]
                    except MALFORMED as error:  # a text that is no UTF-8
                        tree.reject_turn(where, error)
                    number += 1
        except UNREADABLE as error:
            where = f"{tree.shown(path)}, rows {number} to {first + held - 1}"
            tree.reject_turn(where, f"cannot be read ({error}); copy the file again")
        first += held


def _split(row: Mapping[str, Any], of_file: str | None) -> str | None:
    stated = row.get("split") or of_file
    if stated not in (None, *SPLITS):
        raise ValueError(f"split is {stated!r}: expected one of {', '.join(SPLITS)}")
    return stated


def _turn(tree: Tree, path: Path, row: Mapping[str, Any], audio: str, number: int) -> SourceTurn:
    text = text_of(_first(row, TEXT))
    speaker = path.parent.name if not set(SPEAKER) & set(row) else speaker_of(_first(row, SPEAKER))
    identity = row.get("id")
    return SourceTurn(
        speaker=speaker,
        text=text,
        audio=_sound(tree, path, row[audio] or {}, number),
        emotion=label_of(_first(row, EMOTION), "emotion"),
        id=None if identity is None else speaker_of(identity, "id"),
        overlap=_flag(row, "overlap"),
        backchannel=_flag(row, "backchannel"),
        words=_words(row.get("words")),
    )


def _flag(row: Mapping[str, Any], name: str) -> bool:
    if (value := row.get(name)) not in (None, False, True):
        raise ValueError(f"{name} is {value!r}: expected true or false")
    return bool(value)


def _words(values: Any) -> tuple[Word, ...]:
    """Returns the words; none where the column holds no times."""
    entries = values if isinstance(values, list) else []
    if not all(isinstance(entry, Mapping) and {"text", "start", "end"} <= set(entry) for entry in entries):
        return ()
    return tuple(
        Word(text_of(entry["text"], "word"), *(seconds_of(entry[name], name) for name in ("start", "end")))
        for entry in entries
    )


def _sound(tree: Tree, path: Path, sound: Mapping[str, Any], number: int) -> Path:
    """Returns the file of a row's audio; bytes become a file in the scratch folder."""
    if not sound.get("bytes"):
        return tree.find(text_of(sound.get("path"), "path of the audio"), beside=path)
    suffix = Path(sound.get("path") or "").suffix.lower()
    suffix = suffix if suffix in AUDIO_SUFFIXES else ".wav"
    # The path, not the stem: files of one name may lie in several folders.
    target = tree.scratch / f"{file_safe(tree.shown(path.with_suffix('')))}-{number:08d}{suffix}"
    target.write_bytes(sound["bytes"])
    return target


def _counts(table: Any, conversation: str) -> Counter[str] | None:
    """Returns how many rows each conversation has, None where the column cannot be read to its end."""
    try:
        batches = table.iter_batches(columns=[conversation])
        return Counter(str(value.as_py()) for batch in batches for value in batch.column(0))
    except UNREADABLE:
        return None


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if name in row), None)


def _place(row: Mapping[str, Any], number: int) -> tuple[float, int]:
    value = _first(row, TURN)
    if value is None and set(TURN) & set(row):
        raise ValueError("turn_id is null: expected the number of the turn in its conversation")
    try:
        place = float(value)
    except (TypeError, ValueError):
        return 0.0, number
    if math.isnan(place):
        raise ValueError("turn_id is nan: expected the number of the turn in its conversation")
    return place, number


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
