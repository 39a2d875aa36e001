"""Turns from the transcript beside a recording.

NAME.txt    one channel, one speaker (named after the folder), the text of the whole recording
NAME.json   {"turns": [{"speaker", "start", "end", "text", "channel", "emotion"}, ...]}: times in
            seconds; "channel" (from 0) is required with two channels; "emotion" is optional
            {"speaker", "text"}: one channel, one speaker, the text of the whole recording
            {"speakers": ["ANN", "BEN"]}: two channels without times, where voice activity is detected
            {"turns": [{"speaker", "channel", "text"}, ...]}: two channels without times, where the texts
            are assigned in order to the detected activity of their channel, if the numbers agree
no file     two channels: voice activity is detected, speakers are unnamed, texts are empty
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from csm.audio.files import AudioInfo
from csm.data.corpora.layouts.fields import (
    channel_of,
    field,
    label_of,
    seconds_of,
    speaker_of,
    stated_length,
    text_of,
)
from csm.data.corpora.segmentation import SegmentationConfig, detect_segments, merge_units, to_turns
from csm.data.manifest import Recording, Segment, Turn


def read_turns(
    transcript: Path | None,
    path: Path,
    info: AudioInfo,
    recording: Recording,
    folder_name: str,
    rejects: list[tuple[str, str, float | None]],
) -> list[Turn]:
    """Makes the turns of a recording from its transcript.

    Args:
        transcript: Path of the NAME.txt or NAME.json, None if there is none.
        path: Path of the recording.
        info: Statistics of the recording.
        recording: The recording inside the corpus.
        folder_name: Speaker of a transcript that names none.
        rejects: Receives (turn, reason, seconds or None) for each turn that is left out.

    Returns:
        Turns as `to_turns` orders them.

    Raises:
        ValueError: The transcript does not fit the recording; the message says why.
    """
    described = _read(transcript)
    detected = False
    if "turns" in described and _lacks_times(described["turns"]):
        segments = _segments_without_times(path, info, described["turns"])
    elif "turns" in described:
        segments = _segments_with_times(described["turns"], recording, rejects)
    elif "text" in described and info.channels == 1:
        text = text_of(described["text"], "the text beside it")
        speaker = speaker_of(described.get("speaker", folder_name))
        segments = [Segment(speaker=speaker, start=0.0, end=info.duration, text=text)]
    elif info.channels == 2 and "text" not in described:
        detected = True
        segments = _segments_found(path, info, recording, described.get("speakers"))
    elif info.channels == 1:
        raise ValueError("has no transcript beside it; add NAME.txt or NAME.json")
    else:
        raise ValueError("two channels need a .json with turns or speakers, not one text")
    return to_turns(recording, segments, join=detected)


def _segments_found(path: Path, info: AudioInfo, recording: Recording, names: Any) -> list[Segment]:
    names = names or [f"{recording.id}-{channel}" for channel in range(2)]
    if not isinstance(names, list) or len(set(map(str, names))) != 2 or len(names) != 2:
        raise ValueError(f'"speakers" in the .json is {names}: expected two different names, one per channel')
    segments = detect_segments(path, info, [_clean(str(name)) for name in names])
    if not segments:
        raise ValueError("no speech was detected on either channel")
    return segments


def _segments_with_times(
    entries: list[Any], recording: Recording, rejects: list[tuple[str, str, float | None]]
) -> list[Segment]:
    segments = []
    for number, entry in enumerate(entries):
        try:
            segments.append(_segment(entry, recording))
        except (ValueError, TypeError, KeyError) as error:
            reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            rejects.append((f"{recording.id}, turn {number}", reason, stated_length(entry)))
    return segments


def _segment(entry: Any, recording: Recording) -> Segment:
    if not isinstance(entry, dict):
        raise ValueError(f"is {type(entry).__name__}: expected an object with speaker, start, end, text")
    channel = channel_of(entry["channel"] if recording.channels == 2 else entry.get("channel", 0))
    if channel >= recording.channels:
        raise ValueError(f"channel is {channel}: expected 0..{recording.channels - 1}")
    text = text_of(field(entry, "text"), "the text")
    start, end = seconds_of(entry["start"], "start"), seconds_of(entry["end"], "end")
    if end > recording.duration + 0.05:
        raise ValueError(f"end is {end} s: expected at most the duration, {recording.duration:.3f} s")
    return Segment(
        speaker=speaker_of(field(entry, "speaker")),
        start=start,
        end=min(end, recording.duration),
        text=text,
        channel=channel,
        emotion=label_of(entry.get("emotion"), "emotion"),
    )


def _segments_without_times(path: Path, info: AudioInfo, entries: list[Any]) -> list[Segment]:
    """Assigns texts in order to the detected activity of their channel."""
    if info.channels != 2:
        raise ValueError("turns without start and end need two channels, one speaker each")
    names, texts = [], []
    for channel in range(2):
        spoken = [entry for entry in entries if isinstance(entry, dict) and entry.get("channel") == channel]
        speakers = {_clean(str(entry.get("speaker") or "")) for entry in spoken}
        if len(speakers) != 1:
            raise ValueError(
                f"channel {channel} needs turns of exactly one named speaker, not of {len(speakers)}"
            )
        names.append(speakers.pop())
        texts.append([text_of(field(entry, "text")) for entry in spoken])
    if sum(map(len, texts)) != len(entries):
        raise ValueError("each turn without start and end needs speaker, channel (0 or 1) and text")
    if names[0] == names[1]:
        raise ValueError(f"{names[0]} is the speaker of both channels: expected one speaker each")
    found = merge_units(detect_segments(path, info, names), SegmentationConfig().merge_gap)
    laid = []
    for channel in range(2):
        units = [segment for segment in found if segment.channel == channel]
        if len(texts[channel]) != len(units) or not all(texts[channel]):
            raise ValueError(
                f"channel {channel} has {len(units)} intervals of speech and {len(texts[channel])} texts: "
                "expected as many; give start and end of each turn"
            )
        laid += [replace(s, text=text) for s, text in zip(units, texts[channel], strict=True)]
    return laid


def _lacks_times(entries: Any) -> bool:
    if not isinstance(entries, list) or not entries:
        raise ValueError('"turns" in the .json is no list of turns: expected a list with at least one turn')
    return not any(isinstance(entry, dict) and ("start" in entry or "end" in entry) for entry in entries)


def _read(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text) if path.suffix.lower() == ".json" else {"text": text}
    except (ValueError, RecursionError) as error:  # invalid UTF-8, invalid JSON, brackets too deep
        raise ValueError(f"the {path.suffix} beside it cannot be read ({error})") from error
    if isinstance(content, list):
        return {"turns": content}
    if not isinstance(content, dict):
        raise ValueError("the .json beside it holds no object and no list of turns")
    field(content, "turns", "text", "speakers")
    return content


def _clean(speaker: str) -> str:
    """Returns a speaker's name in valid UTF-8 with single spaces."""
    name = " ".join(os.fsencode(speaker).decode("utf-8", "backslashreplace").split())
    if not name:
        raise ValueError("speaker is empty: expected a name")
    return name
