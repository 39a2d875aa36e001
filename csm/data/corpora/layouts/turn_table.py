"""A table of turns, one file a turn: columns conversation, turn, speaker, text, path.

Any of the names in COLUMNS; .csv, .tsv, or .jsonl with one object a line. `start`, `end` (seconds) and
`channel` cut a turn out of a longer file; `emotion` and `split` are kept. Turns are ordered by their number.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from csm.data.corpora.layouts.fields import (
    channel_of,
    field,
    label_of,
    optional,
    seconds_of,
    speaker_of,
    text_of,
)
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn
from csm.data.corpora.layouts.tree import MALFORMED, Tree
from csm.data.manifest import SPLITS

COLUMNS = {
    "conversation": ("conversation_id", "conversation", "dialog_id", "dialogue_id", "conv_id"),
    "turn": ("turn_id", "turn", "turn_idx", "turn_index", "utterance_id"),
    "speaker": ("speaker", "speaker_id"),
    "text": ("text", "transcript", "transcription"),
    "path": ("path", "audio", "audio_path", "file_name", "audio_filepath"),
}


def recognise(tree: Tree) -> str | None:
    """Counts the tables with all columns."""
    found = [path for path in tree.ending(".csv", ".tsv", ".jsonl") if _complete(_names(tree, path))]
    return ", ".join(tree.shown(path) for path in found[:3]) or None


def read(tree: Tree) -> Iterator[SourceConversation]:
    """Yields the conversations of all tables."""
    conversations: dict[str, SourceConversation] = {}
    places: dict[str, list[tuple[Any, SourceTurn]]] = {}
    for path in tree.ending(".csv", ".tsv", ".jsonl"):
        if not _complete(_names(tree, path)):
            continue
        tree.used.add(path)
        for where, row in _rows(tree, path):
            try:
                name = speaker_of(field(row, *COLUMNS["conversation"]), "conversation")
                place = _place(field(row, *COLUMNS["turn"]))
                turn = _turn(tree, path, row)
                split = optional(row, "split") or None
                if split not in (None, *SPLITS):
                    raise ValueError(f"split is {split!r}: expected one of {', '.join(SPLITS)}")
            except MALFORMED as error:
                tree.reject_turn(where, error)
                continue
            tree.used.add(turn.audio)
            conversations.setdefault(name, SourceConversation(id=name, split=split))
            places.setdefault(name, []).append((place, turn))
    for name, conversation in conversations.items():
        conversation.turns = [turn for _, turn in sorted(places[name], key=lambda entry: entry[0])]
        yield conversation


def _turn(tree: Tree, path: Path, row: Mapping[str, Any]) -> SourceTurn:
    start, end, channel = (optional(row, name) for name in ("start", "end", "channel"))
    return SourceTurn(
        speaker=speaker_of(field(row, *COLUMNS["speaker"])),
        text=text_of(field(row, *COLUMNS["text"])),
        audio=tree.find(text_of(field(row, *COLUMNS["path"]), "path"), beside=path),
        start=0.0 if start in (None, "") else seconds_of(start, "start"),
        end=None if end in (None, "") else seconds_of(end, "end"),
        channel=0 if channel in (None, "") else channel_of(channel),
        emotion=label_of(optional(row, "emotion"), "emotion"),
    )


def _place(value: Any) -> tuple[int, float, str]:
    """Returns a key that orders numbers as numbers and before other ids."""
    if value in (None, ""):
        raise ValueError(f"turn is {'null' if value is None else 'empty'}: expected its number or id")
    try:
        return 0, float(value), ""
    except (TypeError, ValueError):
        return 1, 0.0, str(value)


def _rows(tree: Tree, path: Path) -> Iterator[tuple[str, Any]]:
    if path.suffix.lower() == ".jsonl":
        yield from tree.json_lines(path)
    else:
        yield from tree.table(path)


def _names(tree: Tree, path: Path) -> set[str]:
    """Returns the names of the columns, from the first line."""
    try:
        if path.suffix.lower() == ".jsonl":
            return set(tree.keys(path))
        first = tree.text(path).split("\n", 1)[0].strip("\r")
        return set(next(csv.reader([first], delimiter=max("\t,;|", key=first.count)), []))
    except (ValueError, csv.Error):
        return set()


def _complete(names: set[str]) -> bool:
    return all(names & set(choices) for choices in COLUMNS.values())


LAYOUT = Layout(
    name="turns",
    looks_for="a .csv, .tsv or .jsonl with columns conversation_id, turn_id, speaker, text, path",
    recognise=recognise,
    read=read,
)
