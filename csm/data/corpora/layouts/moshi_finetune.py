"""moshi-finetune's stereo layout (Kyutai): NAME.wav of two channels, NAME.json with the words' times.

    data.jsonl   {"path": "data_stereo/NAME.wav", "duration": 24.5}; optional here, all NAME.json are read
    NAME.json    {"alignments": [["the", [0.1, 0.3], "SPEAKER_MAIN"], ...]}

SPEAKER_MAIN is the left channel, every other label the right one. Words become turns by their pauses, or by
`csm_turns`, which csm writes. What a channel without words says is not used; the ledger says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from csm.audio.files import sample_rate_of
from csm.data.corpora.layouts.fields import (
    field,
    label_of,
    optional,
    seconds_of,
    speaker_of,
    stated_length,
    text_of,
)
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn
from csm.data.corpora.layouts.tree import MALFORMED, Tree
from csm.data.word_times import Word

MAIN = "SPEAKER_MAIN"
OTHER = "SPEAKER_OTHER"


def recognise(tree: Tree) -> str | None:
    """Counts the .json files with alignments."""
    found = sum("alignments" in tree.keys(path) for path in tree.ending(".json"))
    return f"{found} .json with alignments" if found else None


def read(tree: Tree) -> Iterator[SourceConversation]:
    """Yields one conversation for each .json with alignments; its joined words are turns."""
    listed = _listed(tree)
    for path in tree.ending(".json"):
        yield from tree.guarded(path, _file(tree, path, listed))


def _file(tree: Tree, path: Path, listed: set[Path]) -> Iterator[SourceConversation]:
    content = tree.json(path)
    alignments = field(content, "alignments")
    if not isinstance(alignments, list):
        raise ValueError(f"alignments are {type(alignments).__name__}: expected a list")
    audio = tree.audio_beside(path)
    if listed and audio not in listed:
        raise ValueError("no line of a .jsonl names its recording; add one or remove the file")
    tree.use(audio, path)
    name = tree.shown(audio.with_suffix(""))
    speakers = content.get("csm_speakers") or {}
    join = content.get("csm_unit") != "turn"  # so earlier exports marked alignments that are turns
    words = dict(_words(tree, name, alignments, audio, speakers, join))
    turns = list(words.values())
    if (stated := content.get("csm_turns")) is not None:
        turns, join = list(_stated_turns(tree, name, stated, words, len(alignments))), False
    _require_words(tree, name, turns)
    name = speaker_of(content.get("csm_conversation", name), "csm_conversation")
    yield SourceConversation(id=name, turns=turns, timeline=True, join=join, split=content.get("csm_split"))


def _stated_turns(
    tree: Tree, name: str, stated: list[Any], words: dict[int, SourceTurn], count: int
) -> Iterator[SourceTurn]:
    """Yields the turns that csm wrote."""
    places = [place for entry in stated for place in field(entry, "alignments")]
    if sorted(places) != list(range(count)):
        raise ValueError("csm_turns must hold each alignment once; remove csm_turns, or export it again")
    for number, entry in enumerate(stated):
        own = [words[place] for place in entry["alignments"] if place in words]
        try:
            if len({(word.speaker, word.channel) for word in own}) != 1:
                raise ValueError("no alignment of it is usable, or they have several speakers: expected one")
            timed = bool(field(entry, "words"))
            yield replace(
                own[0],
                text=text_of(field(entry, "text")),
                start=seconds_of(field(entry, "start"), "start"),
                end=seconds_of(field(entry, "end"), "end"),
                words=tuple(word for part in own for word in part.words) if timed else (),
                id=speaker_of(field(entry, "id"), "id"),
                emotion=label_of(optional(entry, "emotion"), "emotion"),
            )
        except MALFORMED as error:
            tree.reject_turn(f"{name}, turn {number}", error, stated_length(entry))


def _words(
    tree: Tree, name: str, alignments: list[Any], audio: Path, speakers: Any, join: bool
) -> Iterator[tuple[int, SourceTurn]]:
    """Yields (number, alignment) of the usable ones."""
    for number, entry in enumerate(alignments):
        try:
            if not isinstance(entry, (list, tuple)) or len(entry) != 3:
                raise ValueError('expected ["word", [start, end], "SPEAKER"]')
            text, times, label = entry
            if not isinstance(times, (list, tuple)) or len(times) != 2:
                raise ValueError(f"times are {times!r}: expected [start, end]")
            text, label = text_of(text, "word"), speaker_of(label)
            start, end = seconds_of(times[0], "start"), seconds_of(times[1], "end")
            turn = SourceTurn(
                speaker=speaker_of(speakers.get(label, f"{name}-{label}")),
                text=text,
                audio=audio,
                start=start,
                end=end,
                channel=0 if label == MAIN else 1,
                words=(Word(text, start, end),) if join else (),
            )
            yield number, turn
        except MALFORMED as error:
            tree.reject_turn(f"{name}, alignment {number}", error)


def _require_words(tree: Tree, name: str, turns: list[SourceTurn]) -> None:
    for channel in {0, 1} - {turn.channel for turn in turns}:
        tree.reject_turn(
            f"{name}, channel {channel}",
            "no alignment is of this channel: what is said there is not used; --transcribe recognises it",
        )


def _listed(tree: Tree) -> set[Path]:
    found = set()
    for path in tree.ending(".jsonl"):
        tree.used.add(path)
        for where, entry in tree.json_lines(path):
            try:
                audio = tree.find(text_of(field(entry, "path"), "path"), beside=path)
                duration = optional(entry, "duration")
                if duration is not None:
                    seconds_of(duration, "duration")
                sample_rate_of(audio)
                tree.audio_beside(audio.with_suffix(".json"))
                if not audio.with_suffix(".json").is_file():
                    raise ValueError(f"{audio.stem}.json with its alignments is missing beside the recording")
                found.add(audio)
            except ValueError as error:
                tree.reject_turn(where, error)
    return found


LAYOUT = Layout(
    name="moshi",
    looks_for='NAME.json with "alignments" beside NAME.wav of two channels',
    recognise=recognise,
    read=read,
)
