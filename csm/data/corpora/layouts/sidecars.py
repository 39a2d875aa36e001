"""Recordings with .txt or .json of the same name beside them, or with nothing.

    NAME.txt    what is said in the whole recording
    NAME.json   {"turns": [{"speaker", "start", "end", "text", "channel", "emotion"}, ...]}, or a list;
                without start and end the turns are in order, and --transcribe places them
                {"text", "speaker"}: as NAME.txt, with the speaker's name
                {"speakers": ["ANN", "BEN"]}: the names of the channels; --transcribe finds the words

A recording of one channel whose whole text is known is one turn, unless --transcribe places it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from csm.audio.containers import channels_of
from csm.data.corpora.layouts.fields import (
    channel_of,
    field,
    label_of,
    optional,
    seconds_of,
    speaker_of,
    stated_length,
    text_of,
)
from csm.data.corpora.layouts.source import (
    Layout,
    SourceConversation,
    SourceTurn,
    UntimedText,
    Untranscribed,
)
from csm.data.corpora.layouts.tree import MALFORMED, Tree

# Keys of other layouts, and their names.
OTHERS = {"segments": "whisper", "transcription": "whisper", "alignments": "moshi"}


def recognise(tree: Tree) -> str | None:
    """Counts the recordings, and those with a transcript."""
    audio = tree.audio()
    texts = len(tree.ending(".txt", ".json"))
    return f"{len(audio)} recordings, {texts} .txt or .json" if audio else None


def read(tree: Tree) -> Iterator[SourceConversation | Untranscribed]:
    """Yields one conversation for each recording."""
    for audio in tree.audio():
        transcript = None
        try:
            transcript = _beside(tree, audio)
            if transcript and tree.audio_beside(transcript) != audio:
                raise ValueError("the transcript beside it is that of another recording")
            made = _conversation(tree, audio, transcript)
        except MALFORMED as error:
            tree.reject_file(audio, error)
        else:
            yield made
        finally:
            tree.use(audio, *([transcript] if transcript else []))


def _conversation(tree: Tree, audio: Path, transcript: Path | None) -> SourceConversation | Untranscribed:
    name = tree.shown(audio.with_suffix(""))
    if transcript is None:
        return Untranscribed(id=name, audio=audio)
    content: Any = {"text": tree.text(transcript)}
    if transcript.suffix.lower() == ".json":
        content = tree.json(transcript)
    content = {"turns": content} if isinstance(content, list) else content
    for key, layout in OTHERS.items():
        if isinstance(content, Mapping) and key in content and "turns" not in content:
            raise ValueError(f"its .json has {key}: expected turns, text or speakers; use --layout {layout}")
    first = field(content, "turns", "text", "speakers")
    if "turns" in content:
        return _turns(tree, name, audio, first)
    if "text" in content:
        speaker = optional(content, "speaker")  # refuses names that are like it
        stated = speaker_of(speaker) if "speaker" in content else None
        return Untranscribed(id=name, audio=audio, texts=(UntimedText(text_of(first), stated),))
    names = tuple(speaker_of(value) for value in first) if isinstance(first, list) else ()
    if len(set(names)) != (channels := channels_of(audio)):
        raise ValueError(f"speakers are {first!r}: expected {channels} different names, one a channel")
    return Untranscribed(id=name, audio=audio, speakers=names)


def _turns(tree: Tree, name: str, audio: Path, entries: Any) -> SourceConversation | Untranscribed:
    if not isinstance(entries, list) or not entries:
        raise ValueError("turns must be a list with at least one turn")
    channels = channels_of(audio)
    timed = any(isinstance(entry, Mapping) and {"start", "end"} & set(entry) for entry in entries)
    turns: list[SourceTurn] = []
    texts: list[UntimedText] = []
    for number, entry in enumerate(entries):
        try:
            turn = _turn(audio, channels, entry, timed)
        except MALFORMED as error:
            tree.reject_turn(f"{name}, turn {number}", error, stated_length(entry))
            continue
        turns.append(turn)
        texts.append(UntimedText(turn.text, turn.speaker, turn.channel if channels > 1 else None))
    if timed:
        return SourceConversation(id=name, turns=turns, timeline=True)
    return Untranscribed(id=name, audio=audio, texts=tuple(texts))


def _turn(audio: Path, channels: int, entry: Any, timed: bool) -> SourceTurn:
    text, speaker = text_of(field(entry, "text")), speaker_of(field(entry, "speaker"))
    stated = field(entry, "channel") if channels > 1 else optional(entry, "channel")
    channel = 0 if stated is None and channels == 1 else channel_of(stated)
    if channel >= channels:
        raise ValueError(f"channel is {channel}: expected 0..{channels - 1}")
    return SourceTurn(
        speaker=speaker,
        text=text,
        audio=audio,
        start=seconds_of(field(entry, "start"), "start") if timed else 0.0,
        end=seconds_of(field(entry, "end"), "end") if timed else None,
        channel=channel,
        emotion=label_of(optional(entry, "emotion"), "emotion"),
    )


def _beside(tree: Tree, audio: Path) -> Path | None:
    found = (tree.beside(audio, suffix) for suffix in (".json", ".txt"))
    return next((path for path in found if path is not None), None)


LAYOUT = Layout(
    name="sidecars",
    looks_for="NAME.wav (any audio) with NAME.txt or NAME.json, or nothing, beside it",
    recognise=recognise,
    read=read,
)
