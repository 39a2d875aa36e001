"""CANDOR (A. Reece et al., Science Advances 2023; CC BY-NC), video calls of two people.

    ID/processed/ID.mp3 (or .wav, .mp4)             two channels, one person each
    ID/transcription/channel_map.json               {"L": person, "R": person}
    ID/transcription/transcript_backbiter.csv       speaker, start, stop, utterance, backchannel,
                                                    backchannel_speaker, backchannel_start, backchannel_stop

Of the three transcripts, Backbiter keeps backchannels apart from the turns that they accompany. Without it,
Audiophile or Cliffhanger is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from csm.audio.containers import channels_of
from csm.data.corpora.layouts.fields import field, seconds_of, speaker_of, text_of
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn
from csm.data.corpora.layouts.tree import MALFORMED, Tree

TRANSCRIPTS = ("transcript_backbiter.csv", "transcript_audiophile.csv", "transcript_cliffhanger.csv")


def recognise(tree: Tree) -> str | None:
    """Counts the conversations."""
    found = {path.parent for path in tree.files if path.name in TRANSCRIPTS}
    return f"{len(found)} conversations with transcripts" if found else None


def read(tree: Tree) -> Iterator[SourceConversation]:
    """Yields one conversation for each folder."""
    for folder in sorted({path.parent for path in tree.files if path.name in TRANSCRIPTS}):
        found = _transcripts(tree, folder)
        for other in found[1:]:
            tree.reject_file(other, f"{found[0].name} is read in its place")
        name = folder.parent.name
        try:
            audio = tree.audio_beside(folder.parent / "processed" / name, name)
            channels = _channels(tree, folder, audio)
        except MALFORMED as error:
            tree.reject_file(found[0], error)
            continue
        tree.use(audio, found[0], folder / "channel_map.json")
        turns = []
        for where, row in tree.table(found[0]):
            for main in (True, False):
                try:
                    if main or (row.get("backchannel") or "").strip():
                        turns.append(_turn(row, audio, channels, main=main))
                except ValueError as error:
                    tree.reject_turn(where if main else f"{where}, backchannel", error)
        yield SourceConversation(id=name, turns=turns, timeline=True)


def _transcripts(tree: Tree, folder: Path) -> list[Path]:
    """Returns the transcripts in the order of preference, those that are no text last."""
    found = [folder / name for name in TRANSCRIPTS if tree.has(folder / name)]
    return sorted(found, key=lambda path: tree.text_or_none(path) is None)


def _turn(row: Mapping[str, str | None], audio: Path, channels: dict[str, int], *, main: bool) -> SourceTurn:
    prefix = "" if main else "backchannel_"
    speaker = speaker_of(field(row, f"{prefix}speaker"), f"{prefix}speaker")
    if speaker not in channels:
        raise ValueError(f"speaker is {speaker!r}: expected one of channel_map.json, {', '.join(channels)}")
    return SourceTurn(
        speaker=speaker,
        text=text_of(field(row, "utterance" if main else "backchannel")),
        audio=audio,
        start=seconds_of(field(row, f"{prefix}start"), f"{prefix}start"),
        end=seconds_of(field(row, f"{prefix}stop"), f"{prefix}stop"),
        channel=channels[speaker],
    )


def _channels(tree: Tree, folder: Path, audio: Path) -> dict[str, int]:
    path = folder / "channel_map.json"
    if not tree.has(path):
        raise ValueError("channel_map.json is missing beside it: expected the person of L and R")
    content = tree.json(path)
    if (channels := channels_of(audio)) != 2:
        raise ValueError(f"its recording has {channels} channels: expected 2, one person each")
    people = {speaker_of(field(content, side), side): number for number, side in enumerate("LR")}
    if len(people) != 2:
        raise ValueError(f"L and R of channel_map.json are both {', '.join(people)}: expected two people")
    return people


LAYOUT = Layout(
    name="candor",
    looks_for="ID/transcription/transcript_backbiter.csv and ID/processed/ID.mp3 (CANDOR)",
    recognise=recognise,
    read=read,
)
