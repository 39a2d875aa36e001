"""Transcripts of Whisper, WhisperX and whisper.cpp: NAME.json beside NAME.wav.

    Whisper, faster-whisper   {"segments": [{"start", "end", "text", "words": [{"word", "start", "end"}]}]}
    WhisperX                  the same with "speaker" in segments and words
    whisper.cpp -oj [-di]     {"transcription": [{"offsets": {"from", "to"} in ms, "text", "speaker"}]}

Segments become turns. Without speakers, a recording of one channel has one speaker, named after its folder.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from csm.audio.containers import channels_of
from csm.data.corpora.layouts.fields import (
    channel_of,
    field,
    optional,
    seconds_of,
    speaker_of,
    stated_length,
    text_of,
)
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn
from csm.data.corpora.layouts.tree import MALFORMED, Tree
from csm.data.word_times import Word

KEYS = {"segments", "transcription"}


def recognise(tree: Tree) -> str | None:
    """Counts the .json files with segments or a transcription."""
    found = sum(bool(tree.keys(path) & KEYS) for path in tree.ending(".json"))
    return f"{found} .json with segments" if found else None


def read(tree: Tree) -> Iterator[SourceConversation]:
    """Yields one conversation for each transcript; its segments are turns."""
    for path in tree.ending(".json"):
        yield from tree.guarded(path, _file(tree, path))


def _file(tree: Tree, path: Path) -> Iterator[SourceConversation]:
    segments = field(tree.json(path), "segments", "transcription")
    audio = tree.audio_beside(path)
    channels = channels_of(audio)
    name = tree.shown(audio.with_suffix(""))
    if not isinstance(segments, list):
        raise ValueError(f"segments are {type(segments).__name__}: expected a list")
    tree.use(audio, path)
    named = any(isinstance(segment, Mapping) and segment.get("speaker") is not None for segment in segments)
    turns = []
    for number, segment in enumerate(segments):
        try:
            turns.append(_turn(segment, audio, channels, named=named))
        except MALFORMED as error:
            tree.reject_turn(f"{name}, segment {number}", error, stated_length(segment))
    yield SourceConversation(id=name, turns=turns, timeline=True)


def _turn(segment: Any, audio: Path, channels: int, *, named: bool) -> SourceTurn:
    text = text_of(field(segment, "text"))
    start, end = _times(segment)
    label = optional(segment, "speaker")
    if label is None and named:
        raise ValueError("speaker is missing, as other segments have one: expected a name; add it")
    if label is None and channels > 1:
        raise ValueError(f"speaker is missing: the recording has {channels} channels; name the speaker")
    speaker = audio.parent.name if label is None else speaker_of(label)
    channel = optional(segment, "channel")
    if channels > 1 and channel is None:
        if speaker not in [str(number) for number in range(channels)]:  # whisper.cpp names the channel
            raise ValueError(f"channel is missing: the recording has {channels} channels; state 0, 1, ...")
        channel, speaker = int(speaker), f"{audio.stem}-{speaker}"
    return SourceTurn(
        speaker=speaker,
        text=text,
        audio=audio,
        start=start,
        end=end,
        channel=0 if channel is None else channel_of(channel),
        words=_words(segment),
    )


def _times(segment: Any) -> tuple[float, float]:
    if "offsets" in segment:
        offsets = segment["offsets"]
        start, end = (seconds_of(field(offsets, name), name) for name in ("from", "to"))
        return start / 1000, end / 1000
    return seconds_of(field(segment, "start"), "start"), seconds_of(field(segment, "end"), "end")


def _words(segment: Any) -> tuple[Word, ...]:
    """Returns the words; none where one of them has no times (WhisperX leaves them out of numbers)."""
    words = [word for word in segment.get("words") or [] if isinstance(word, dict)]
    if not all({"start", "end", "word"} <= set(word) for word in words):
        return ()
    return tuple(
        Word(
            text_of(word["word"], "word"),
            seconds_of(word["start"], "start of a word"),
            seconds_of(word["end"], "end of a word"),
        )
        for word in words
    )


LAYOUT = Layout(
    name="whisper",
    looks_for='NAME.json with "segments" (Whisper, WhisperX) or "transcription" (whisper.cpp)',
    recognise=recognise,
    read=read,
)
