"""Kaldi's data folders: wav.scp, text, utt2spk; segments and reco2file_and_channel where there are any.

Utterances of one recording are one conversation. Recordings that are one channel each of a conversation
(reco2file_and_channel) share it. Lines of wav.scp that are commands ("sph2pipe ... |") are rejected: csm runs
no command that a data file holds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from csm.audio.containers import channels_of
from csm.data.corpora.layouts.fields import seconds_of, speaker_of, text_of
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn
from csm.data.corpora.layouts.tree import Tree


class Place(NamedTuple):
    """A recording's file, conversation and channel."""

    audio: Path
    conversation: str
    channel: int


def recognise(tree: Tree) -> str | None:
    """Names the folders with wav.scp and text."""
    found = [path.parent for path in tree.files if path.name == "wav.scp" and tree.has(path.parent / "text")]
    return ", ".join(f"{tree.shown(folder)}/wav.scp" for folder in found[:3]) or None


def read(tree: Tree) -> Iterator[SourceConversation]:
    """Yields the conversations of each folder."""
    for scp in [path for path in tree.files if path.name == "wav.scp"]:
        if not tree.has(scp.parent / "text"):
            tree.reject_file(scp, "there is no text beside it")
            continue
        yield from tree.guarded(scp, _folder(tree, scp.parent))


def _folder(tree: Tree, folder: Path) -> Iterator[SourceConversation]:
    places = _places(tree, folder)
    speakers = dict(_table(tree, folder / "utt2spk"))
    segments = dict(_table(tree, folder / "segments"))
    texts = _table(tree, folder / "text")
    where = tree.shown(folder / "segments")
    for utterance in sorted(set(segments) - {name for name, _ in texts}):
        tree.reject_turn(f"{where}, {utterance}", "has no line in text: expected the words that are said")
    conversations: dict[str, SourceConversation] = {}
    for utterance, text in texts:
        try:
            recording, start, end = _segment(utterance, segments)
            place = places.get(recording)
            if place is None:
                raise ValueError(f"recording {recording!r} has no usable line in wav.scp")
            turn = SourceTurn(
                speaker=speaker_of(speakers.get(utterance), "its line in utt2spk"),
                text=text_of(text),
                audio=place.audio,
                start=start,
                end=end,
                channel=place.channel,
                id=utterance,
            )
        except ValueError as error:
            tree.reject_turn(utterance, error)
            continue
        tree.used.add(place.audio)
        name = place.conversation
        conversations.setdefault(name, SourceConversation(id=name, timeline=True)).turns.append(turn)
    yield from conversations.values()


def _segment(utterance: str, segments: dict[str, str]) -> tuple[str, float, float | None]:
    if not segments:
        return utterance, 0.0, None
    if utterance not in segments:
        raise ValueError("has no line in segments")
    parts = segments[utterance].split()
    if len(parts) != 3:
        raise ValueError(f"its line in segments is {segments[utterance]!r}: expected recording, start, end")
    return parts[0], seconds_of(parts[1], "start"), seconds_of(parts[2], "end")


def _places(tree: Tree, folder: Path) -> dict[str, Place]:
    channels = dict(_table(tree, folder / "reco2file_and_channel"))
    places = {}
    for recording, source in _table(tree, folder / "wav.scp"):
        try:
            if source.rstrip().endswith("|"):
                raise ValueError(
                    f"its audio is a command, {source.strip()!r}: expected a path; run it yourself"
                )
            name, channel = (*channels.get(recording, f"{recording} A").split(), "A")[:2]
            if channel not in ("A", "B", "1", "2"):
                raise ValueError(f"its channel is {channel!r}: expected A or B")
            audio = tree.find(text_of(source, "path"), beside=folder / "wav.scp")
            # A file of one channel was cut out of the conversation's file before.
            number = "AB12".index(channel) % 2 if channels_of(audio) > 1 else 0
            places[recording] = Place(audio, name, number)
        except ValueError as error:
            tree.reject_turn(f"recording {recording}", error)
    return places


def _table(tree: Tree, path: Path) -> list[tuple[str, str]]:
    """Returns (first word, rest) of each line; empty if the file is missing."""
    if not tree.has(path):
        return []
    tree.used.add(path)
    parts = (line.split(None, 1) for _, line in tree.lines(path))
    return [(part[0], part[1] if len(part) > 1 else "") for part in parts]


LAYOUT = Layout(
    name="kaldi",
    looks_for="wav.scp, text and utt2spk (segments, reco2file_and_channel)",
    recognise=recognise,
    read=read,
)
