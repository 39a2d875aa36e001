"""NeMo manifests: a .json or .jsonl, one object a line with audio_filepath, text, duration.

`offset` (seconds) cuts the line out of a longer file. Lines of one file with different offsets are one
conversation, ordered by time; any other line is a conversation of its own. Without `speaker`, the speaker is
the folder of the recording.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from csm.data.corpora.layouts.fields import field, label_of, optional, seconds_of, speaker_of, text_of
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn
from csm.data.corpora.layouts.tree import MALFORMED, Tree


def recognise(tree: Tree) -> str | None:
    """Names the manifests."""
    found = _manifests(tree)
    return ", ".join(tree.shown(path) for path in found[:3]) or None


def read(tree: Tree) -> Iterator[SourceConversation]:
    """Yields one conversation for each recording."""
    turns: dict[Path, list[SourceTurn]] = defaultdict(list)
    for path in _manifests(tree):
        tree.used.add(path)
        for where, entry in tree.json_lines(path):
            try:
                turn = _turn(tree, path, entry)
            except MALFORMED as error:
                tree.reject_turn(where, error)
                continue
            tree.used.add(turn.audio)
            turns[turn.audio].append(turn)
    for audio, spoken in turns.items():
        yield SourceConversation(id=tree.shown(audio.with_suffix("")), turns=spoken, timeline=True)


def _turn(tree: Tree, path: Path, entry: Any) -> SourceTurn:
    audio = tree.find(text_of(field(entry, "audio_filepath"), "audio_filepath"), beside=path)
    offset, duration = optional(entry, "offset"), optional(entry, "duration")
    start = 0.0 if offset is None else seconds_of(offset, "offset")
    # Without an offset the line is the whole file, whose own length counts.
    end = None if offset is None or duration is None else start + seconds_of(duration, "duration")
    speaker = optional(entry, "speaker", "speaker_id", "label")
    return SourceTurn(
        speaker=audio.parent.name if speaker is None else speaker_of(speaker),
        text=text_of(field(entry, "text")),
        audio=audio,
        start=start,
        end=end,
        emotion=label_of(optional(entry, "emotion"), "emotion"),
    )


def _manifests(tree: Tree) -> list[Path]:
    return [path for path in tree.ending(".json", ".jsonl") if "audio_filepath" in tree.keys(path)]


LAYOUT = Layout(
    name="nemo",
    looks_for='a .json or .jsonl with a line {"audio_filepath", "text", "duration"} each',
    recognise=recognise,
    read=read,
)
