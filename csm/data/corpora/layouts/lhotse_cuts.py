"""Lhotse's manifests, plain or .gz: recordings.jsonl with supervisions.jsonl, or cuts.jsonl.

Supervisions of one recording are one conversation; one that stands in two cuts, which overlap, is one turn.
Read as the JSON that they are: lhotse is not needed.
`custom` may hold emotion, conversation and split, as csm writes them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
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
from csm.data.word_times import Word


def recognise(tree: Tree) -> str | None:
    """Names the manifests."""
    cuts, supervisions = _named(tree, "cuts"), _named(tree, "supervisions")
    return ", ".join(tree.shown(path) for path in (cuts or supervisions)[:3]) or None


def read(tree: Tree) -> Iterator[SourceConversation]:
    """Yields one conversation for each recording, or for each `custom.conversation`."""
    conversations: dict[str, SourceConversation] = {}
    audio: dict[str, set[Path]] = {}
    taken: dict[str, list[SourceTurn]] = {}
    for where, recording, supervision, offset in _supervisions(tree):
        try:
            turn = _turn(tree, recording, supervision, offset)
            custom = supervision.get("custom") or {}
            name = custom.get("conversation") or field(supervision, "recording_id")
            name = speaker_of(name, "recording_id")
        except MALFORMED as error:
            tree.reject_turn(where, error)
            continue
        same_id = taken.setdefault(str(turn.id), [])
        if any(_is_same(turn, other) for other in same_id):
            continue
        same_id.append(turn)
        tree.used.add(turn.audio)
        split, synthetic = custom.get("split"), bool(custom.get("synthetic"))
        empty = SourceConversation(id=name, split=split, synthetic=synthetic)
        conversations.setdefault(name, empty).turns.append(turn)
        audio.setdefault(name, set()).add(turn.audio)
    for name, conversation in conversations.items():
        conversation.timeline = len(audio[name]) == 1
        yield conversation


def _turn(tree: Tree, recording: Any, supervision: Any, offset: float) -> SourceTurn:
    channel = optional(supervision, "channel")
    channel = channel[0] if isinstance(channel, list) and len(channel) == 1 else channel
    start = _start(field(supervision, "start"), offset)
    return SourceTurn(
        speaker=speaker_of(field(supervision, "speaker")),
        text=text_of(field(supervision, "text")),
        audio=_audio(tree, recording),
        start=start,
        end=start + seconds_of(field(supervision, "duration"), "duration"),
        channel=0 if channel is None else channel_of(channel),
        emotion=label_of((supervision.get("custom") or {}).get("emotion"), "emotion"),
        words=_words(supervision, offset),
        id=speaker_of(field(supervision, "id"), "id"),
    )


def _is_same(turn: SourceTurn, other: SourceTurn) -> bool:
    """Returns whether two turns are equal, but for rounding of the times in their cuts."""
    near = all(abs(a - b) < 1e-3 for a, b in ((turn.start, other.start), (turn.end or 0, other.end or 0)))
    return near and replace(turn, start=0.0, end=None, words=()) == replace(
        other, start=0.0, end=None, words=()
    )


def _start(value: Any, offset: float, name: str = "start") -> float:
    if isinstance(value, int | float) and value < 0:  # it begins before its cut
        return seconds_of(round(offset + value, 9), name)
    return offset + seconds_of(value, name)


def _audio(tree: Tree, recording: Any) -> Path:
    sources = field(recording, "sources")
    if not isinstance(sources, list) or len(sources) != 1:
        raise ValueError("its recording has several sources: expected one file")
    if (kind := field(sources[0], "type")) != "file":
        raise ValueError(f"the type of its source is {kind!r}: expected file; run lhotse's copy first")
    return tree.find(text_of(field(sources[0], "source"), "source"))


def _words(supervision: Mapping[str, Any], offset: float) -> tuple[Word, ...]:
    items = (supervision.get("alignment") or {}).get("word") or []
    return tuple(_word(item, offset) for item in items)


def _word(item: Any, offset: float) -> Word:
    symbol, start, duration, *_ = item
    first = _start(start, offset, "start of a word")
    return Word(text_of(symbol, "word"), first, first + seconds_of(duration, "duration of a word"))


def _supervisions(tree: Tree) -> Iterator[tuple[str, Any, Any, float]]:
    """Yields (place, recording, supervision, seconds of its origin) of every supervision."""
    if cuts := _named(tree, "cuts"):
        for path in cuts:
            tree.used.add(path)
            for where, cut in tree.json_lines(path):
                try:
                    if (kind := cut.get("type")) not in ("MonoCut", "MultiCut"):
                        raise ValueError(f"type is {kind!r}: expected MonoCut or MultiCut")
                    recording = field(cut, "recording")
                    offset = seconds_of(field(cut, "start"), "start")
                    supervisions = cut.get("supervisions") or []
                    if not isinstance(supervisions, list):
                        raise ValueError(f"supervisions are {type(supervisions).__name__}: expected a list")
                except ValueError as error:
                    tree.reject_turn(where, error)
                    continue
                for supervision in supervisions:
                    yield where, recording, supervision, offset
        return
    recordings: dict[str, Any] = {}
    for path in _named(tree, "recordings"):
        tree.used.add(path)
        for where, entry in tree.json_lines(path):
            try:
                recordings[speaker_of(field(entry, "id"), "id")] = entry
            except ValueError as error:
                tree.reject_turn(where, error)
    for path in _named(tree, "supervisions"):
        tree.used.add(path)
        for where, supervision in tree.json_lines(path):
            try:
                name = speaker_of(field(supervision, "recording_id"), "recording_id")
                if name not in recordings:
                    raise ValueError(f"recording_id is {name!r}: expected one of recordings.jsonl")
            except ValueError as error:
                tree.reject_turn(where, error)
                continue
            yield where, recordings[name], supervision, 0.0


def _named(tree: Tree, word: str) -> list[Path]:
    return [path for path in tree.ending(".jsonl", ".jsonl.gz") if word in path.name.lower()]


LAYOUT = Layout(
    name="lhotse",
    looks_for="cuts.jsonl, or recordings.jsonl with supervisions.jsonl (.gz too)",
    recognise=recognise,
    read=read,
)
