"""Subtitles: NAME.srt or NAME.vtt beside NAME.wav.

A speaker is a WebVTT voice tag `<v Ann>`, a prefix "Ann: " or "[SPEAKER_00]: "; it holds for the cue. If no
cue of the file names one, the one speaker is named after the folder. Cues become turns.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from csm.audio.containers import channels_of
from csm.data.corpora.layouts.fields import speaker_of, text_of
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn
from csm.data.corpora.layouts.tree import Tree

TIME = r"(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{1,3})"
TIMES = re.compile(rf"\s*{TIME}\s*-->\s*{TIME}")
VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
PREFIX = re.compile(r"^\s*(?:\[([^\]]{1,40})\]\s*:?|([^\W\d_][\w .'-]{0,39}):)\s+(.*)$", re.DOTALL)
TAG = re.compile(r"<[^>]*>|\{\\[^}]*\}")


def recognise(tree: Tree) -> str | None:
    """Counts the .srt and .vtt files."""
    srt, vtt = len(tree.ending(".srt")), len(tree.ending(".vtt"))
    return f"{srt} .srt, {vtt} .vtt" if srt + vtt else None


def read(tree: Tree) -> Iterator[SourceConversation]:
    """Yields one conversation for each file of subtitles."""
    for path in tree.ending(".srt", ".vtt"):
        try:
            audio = tree.audio_beside(path)
            if (channels := channels_of(audio)) > 1:
                raise ValueError(f"its recording has {channels} channels: subtitles name none; expected one")
            cues = _cues(tree.text(path))
        except ValueError as error:
            tree.reject_file(path, error)
            continue
        tree.used.update({path, audio})
        name = tree.shown(audio.with_suffix(""))
        named = any(speaker for *_, speaker, _ in cues)
        turns = []
        for number, (start, end, speaker, text) in enumerate(cues, 1):
            try:
                if named and not speaker:
                    raise ValueError('no speaker is named, as in other cues: expected "NAME: text"')
                turns.append(
                    SourceTurn(
                        speaker=speaker_of(speaker or audio.parent.name),
                        text=text_of(text),
                        audio=audio,
                        start=start,
                        end=end,
                    )
                )
            except ValueError as error:
                tree.reject_turn(f"{name}, cue {number}", error)
        yield SourceConversation(id=name, turns=turns, timeline=True)


def _cues(content: str) -> list[tuple[float, float, str, str]]:
    """Returns (start, end, speaker or "", text) of each cue."""
    cues = []
    lines = content.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    index = 0
    while index < len(lines):
        found = TIMES.match(lines[index])
        index += 1
        if not found:
            continue  # numbers, WEBVTT, NOTE and STYLE blocks
        body = []
        while index < len(lines) and lines[index].strip():
            body.append(lines[index])
            index += 1
        cues.append((*_seconds(found), *_spoken("\n".join(body))))
    return cues


def _spoken(body: str) -> tuple[str, str]:
    voice = VOICE.search(body)
    text = html.unescape(TAG.sub("", body))
    if voice:
        return html.unescape(voice[1]), text
    if prefix := PREFIX.match(text):
        return prefix[1] or prefix[2], prefix[3]
    return "", text


def _seconds(found: re.Match[str]) -> tuple[float, float]:
    groups = [*found.groups()]
    times = []
    for hours, minutes, seconds, fraction in (groups[:4], groups[4:]):
        whole = 3600 * int(hours or 0) + 60 * int(minutes) + int(seconds)
        times.append(whole + int(fraction.ljust(3, "0")) / 1000)
    return times[0], times[1]


LAYOUT = Layout(
    name="subtitles",
    looks_for="NAME.srt or NAME.vtt beside NAME.wav of one channel",
    recognise=recognise,
    read=read,
)
