"""Hugging Face datasets in parquet with an Audio column: a struct of bytes and path.

Text is `text`, `transcript`, `transcription` or `sentence`; speaker `speaker`, `speaker_id` or `client_id`
(without one, the one speaker is named after the folder). Rows of one `conversation_id` are ordered by
`turn_id`, also where they lie in several files of a split; without it each row is a conversation of its own.
`emotion` or `style`, `split`, `synthetic`, `id`, `overlap`, `backchannel` and `words` (text, start and end in
the row's audio) are kept. The split of a file named train-, validation- or test- holds for its rows. Files of
one folder and one split, in the order of their names, are one set.
"""

from __future__ import annotations

import importlib
import io
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import soundfile

from csm.audio.containers import length_of
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


class _Row(NamedTuple):
    """A row that is kept: its turn_id, None where it is no number, its file, place there, and turn."""

    place: float | None
    file: Path
    number: int
    turn: SourceTurn


class _Set:
    """The open conversations of a set of files: those of which rows are still to come.

    Args:
        waiting: Number of rows of each conversation; None: unknown, all stay open to the end.
    """

    def __init__(self, waiting: Counter[str] | None) -> None:
        self.waiting = waiting
        self.opened: dict[str, tuple[SourceConversation, list[_Row]]] = {}

    def is_whole(self, name: str) -> bool:
        """Counts a row of a conversation and returns whether it was the last one."""
        if self.waiting is None:
            return False
        self.waiting[name] -= 1
        if whole := self.waiting[name] <= 0:
            del self.waiting[name]
        return whole

    def closed(self, tree: Tree, name: str) -> Iterator[SourceConversation]:
        """Yields a conversation with its turns in order, if a row of it is kept.

        Where two files have a turn_id of it, these are two conversations of one name: the second is rejected.
        """
        if name not in self.opened:
            return
        made, rows = self.opened.pop(name)
        owners: dict[float, Path] = {}
        reasons: dict[Path, str] = {}
        for row in (row for row in rows if row.place is not None):
            if (owner := owners.setdefault(row.place or 0.0, row.file)) != row.file:
                turn = f"turn {row.place:g} of conversation {made.id!r}"
                reasons[row.file] = f"{tree.shown(owner)} has a {turn} too; rename one of the conversations"
        for row in sorted(rows, key=lambda row: row.place or 0.0):
            if row.file in reasons:
                where = f"{tree.shown(row.file)}, row {row.number}"
                tree.reject_turn(where, reasons[row.file], length_of(row.turn.audio))
                tree.drop(row.turn.audio)
            else:
                made.turns.append(row.turn)
        yield made


def read(tree: Tree) -> Iterator[SourceConversation]:
    """Yields the conversations of every set of files."""
    sets: dict[tuple[Path, str | None], list[Path]] = defaultdict(list)
    stems = Counter(path.stem for path in tree.ending(".parquet"))
    for path in tree.ending(".parquet"):
        tree.used.add(path)
        sets[path.parent, _split_of(path)].append(path)
    for paths in sets.values():
        found = _Set(_counts(paths))
        for path in paths:
            name = path.stem if stems[path.stem] == 1 else tree.shown(path.with_suffix(""))
            yield from tree.guarded(path, _file(tree, path, name, found))
        for name in list(found.opened):  # rows of theirs could not be read
            yield from found.closed(tree, name)


def _library() -> Any:
    try:
        return importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ValueError(missing_package("pyarrow", "reading parquet")) from error


def _split_of(path: Path) -> str | None:
    return next((split for split in SPLITS if path.name.lower().startswith(split)), None)


def _file(tree: Tree, path: Path, own: str, found: _Set) -> Iterator[SourceConversation]:
    """Yields the conversations that end in a file; a row without one is called `own` and its number."""
    library = _library()
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
    split, conversation = _split_of(path), _conversation_of(names)
    for number, row in _rows(tree, path, table):
        name = str(row.get(conversation)) if conversation else f"{own}-{number:06d}"
        whole = conversation is None or found.is_whole(name)
        try:
            stated, place = _split(row, split), _place(row)
            known = speaker_of(row[conversation], "conversation") if conversation else name
            made = SourceConversation(id=known, split=stated, synthetic=_flag(row, "synthetic"))
            turn = _turn(tree, path, row, audio, number)
            found.opened.setdefault(name, (made, []))[1].append(_Row(place, path, number, turn))
        except MALFORMED as error:
            tree.reject_turn(f"{tree.shown(path)}, row {number}", error, _seconds(row[audio]))
        if whole:
            yield from found.closed(tree, name)


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
    # Last the audio: that of a row which is rejected would stay on the disk.
    return SourceTurn(
        speaker=speaker,
        text=text,
        emotion=label_of(_first(row, EMOTION), "emotion"),
        id=None if identity is None else speaker_of(identity, "id"),
        overlap=_flag(row, "overlap"),
        backchannel=_flag(row, "backchannel"),
        words=_words(row.get("words")),
        audio=_sound(tree, path, row[audio] or {}, number),
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


def _seconds(sound: Any) -> float | None:
    """Returns the length of a row's audio, None where libsndfile reads none."""
    if not isinstance(sound, Mapping) or not sound.get("bytes"):
        return None
    try:
        return float(soundfile.info(io.BytesIO(sound["bytes"])).duration)
    except (soundfile.SoundFileError, RuntimeError, TypeError):
        return None


def _conversation_of(names: list[str]) -> str | None:
    return next((name for name in CONVERSATION if name in names), None)


def _counts(paths: list[Path]) -> Counter[str] | None:
    """Returns how many rows of the files each conversation has, None where one cannot be read to its end."""
    found: Counter[str] = Counter()
    for path in paths:
        try:
            table = _library().ParquetFile(path)
            conversation = _conversation_of(table.schema_arrow.names)
        except UNREADABLE:
            continue  # no row of it is read
        try:
            batches = table.iter_batches(columns=[conversation]) if conversation else ()
            for batch in batches:
                found.update(str(value.as_py()) for value in batch.column(0))
        except UNREADABLE:
            return None
    return found


def _first(row: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((row[name] for name in names if name in row), None)


def _place(row: Mapping[str, Any]) -> float | None:
    value = _first(row, TURN)
    if value is None and set(TURN) & set(row):
        raise ValueError("turn_id is null: expected the number of the turn in its conversation")
    try:
        place = float(value)
    except (TypeError, ValueError):
        return None
    if math.isnan(place):
        raise ValueError("turn_id is nan: expected the number of the turn in its conversation")
    return place


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
