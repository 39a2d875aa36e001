"""Subtitles: NAME.srt or NAME.vtt beside NAME.wav.

A speaker is a WebVTT voice tag `<v Ann>`, a prefix "Ann: " or "[SPEAKER_00]: "; it holds for the cue. If no
cue of the file names one, the one speaker is named after the folder. Cues become turns.

A prefix is a name where most cues have one, or where it recurs and has at most 3 words: "And she told me:" is
none. Tags of sounds such as [laughter] are no words; they are left out and counted. A cue of several speakers
is rejected, as it does not say when each of them speaks.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from csm.audio.containers import channels_of
from csm.data.corpora.layouts.fields import speaker_of, text_of
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn
from csm.data.corpora.layouts.tree import Tree

TIME = r"(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{1,3})"
TIMES = re.compile(rf"\s*{TIME}\s*-->\s*{TIME}")
VOICE = re.compile(r"<v(?:\.[^\s>]*)?\s+([^>]+)>")
PREFIX = re.compile(r"\s*(?:\[([^\]]{1,40})\]\s*(:?)|([^\W\d_][\w .'-]{0,39}):)(?:\s+(.*))?$")
TAG = re.compile(r"</?[a-zA-Z][^>]*>|<\d\d+:[^>]*>|\{\\[^}]*\}")
DASH = r"[-\u2013\u2014]\s*[^\W\d]"
DIALOGUE = re.compile(rf'{DASH}.*?(?:[.?!\u2026"]\s+|\n\s*){DASH}', re.DOTALL)
SIDE_NOTE = re.compile(r"\[[^\]]*\]|\((?:[^\s)]+ ?){1,4}\)")
SOUND = re.compile(
    r"\b(?:(?:laugh|chuckl|giggl|applau|clap|cheer|cough|sneez|sigh|breath|gasp|inhal|exhal|scream|sniff|groan"
    r"|sob|cry|beep|ring|clear|paus)(?:e?s|ter|ed|ing|p?ing|se)?|music|noises?|silence|inaudible|unintelligible"
    r"|indistinct|crosstalk|static)\b",
    re.IGNORECASE,
)
MOST_WORDS = 3  # of a name that stands before few cues


class Cue(NamedTuple):
    """A cue with its times in seconds."""

    start: float
    end: float
    body: str


class Prefix(NamedTuple):
    """What may be a speaker before a line: the name, whether a colon follows it, and the rest of the line."""

    name: str
    colon: bool
    rest: str


def recognise(tree: Tree) -> str | None:
    """Counts the .srt and .vtt files."""
    srt, vtt = len(tree.ending(".srt")), len(tree.ending(".vtt"))
    return f"{srt} .srt, {vtt} .vtt" if srt + vtt else None


def read(tree: Tree) -> Iterator[SourceConversation]:
    """Yields one conversation for each file of subtitles."""
    for path in tree.ending(".srt", ".vtt"):
        yield from tree.guarded(path, _file(tree, path))


def _file(tree: Tree, path: Path) -> Iterator[SourceConversation]:
    audio = tree.audio_beside(path)
    if (channels := channels_of(audio)) > 1:
        raise ValueError(f"its recording has {channels} channels: subtitles name none; expected one")
    cues = _cues(tree.text(path))
    tree.use(audio, path)
    name = tree.shown(audio.with_suffix(""))
    speakers = _speakers(cues)
    named = bool(speakers) or any(VOICE.search(cue.body) for cue in cues)
    turns: list[SourceTurn] = []
    sounds: Counter[str] = Counter()
    for number, cue in enumerate(cues, 1):
        try:
            speaker, text, tags = _spoken(cue.body, speakers)
            if named and not speaker:
                raise ValueError('no speaker is named, as in other cues: expected "NAME: text"')
            speaker = speaker_of(speaker or audio.parent.name)
            turns.append(SourceTurn(speaker=speaker, text=text, audio=audio, start=cue.start, end=cue.end))
            sounds.update(tags)
        except ValueError as error:
            tree.reject_turn(f"{name}, cue {number}", error, max(0.0, cue.end - cue.start))
    for tag, count in sorted(sounds.items()):
        tree.reject_turn(f"{name}, {count} x {tag}", "is no speech: left out of the text of its cue")
    yield SourceConversation(id=name, turns=turns, timeline=True)


def _cues(content: str) -> list[Cue]:
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
        cues.append(Cue(*_seconds(found), "\n".join(body)))
    return cues


def _speakers(cues: list[Cue]) -> set[str]:
    """Returns the prefixes that are names."""
    prefixes = [_prefix(_plain(cue.body)) for cue in cues]
    spoken = sum(bool(_without_sounds(_plain(cue.body))[0]) for cue in cues)
    found = [prefix for prefix in prefixes if prefix is not None]
    voices = sum(VOICE.search(cue.body) is not None for cue in cues)
    most = 2 * (len(found) + voices) > spoken
    counts = Counter(prefix.name for prefix in found)

    def is_name(prefix: Prefix) -> bool:
        short, recurs = len(prefix.name.split()) <= MOST_WORDS, counts[prefix.name] > 1
        return (short or recurs) if most else (short and recurs and prefix.colon)

    return {prefix.name for prefix in found if is_name(prefix)}


def _prefix(text: str) -> Prefix | None:
    """Returns what may be a speaker before a text, None for a sound, and where no text follows."""
    line, _, after = text.strip().partition("\n")
    found = PREFIX.match(line)
    name = "" if found is None else " ".join((found[1] or found[3]).split())
    if found is None or not name or (found[1] and SOUND.search(name)):
        return None
    rest = f"{found[4] or ''}\n{after}"
    return Prefix(name, bool(found[2] or found[3]), rest) if _without_sounds(rest)[0] else None


def _spoken(body: str, speakers: set[str]) -> tuple[str, str, list[str]]:
    """Returns the speaker or "", the words, and the sounds that are left out of them.

    Raises:
        ValueError: The cue has several speakers, or no words.
    """
    voices = list(dict.fromkeys(html.unescape(voice).strip() for voice in VOICE.findall(body)))
    text = _plain(body)
    prefix = None if voices else _prefix(text)
    if prefix is not None and prefix.name in speakers:
        text = prefix.rest
    else:
        prefix = None
    later = (_prefix(line) for line in text.split("\n"))
    voices += [] if prefix is None else [prefix.name]
    voices += [other.name for other in later if other is not None and other.name in speakers]
    if len(set(voices)) > 1 or DIALOGUE.match(text.strip()):
        names = ", ".join(voices) if len(set(voices)) > 1 else '"- ... - ..."'
        raise ValueError(f"has several speakers, {names}: expected one, as it has one time; split the cue")
    words, sounds = _without_sounds(text)
    if sounds and not words:
        raise ValueError(f"holds only {', '.join(sounds)}: expected the words that are said")
    return voices[0] if voices else "", text_of(words), sounds


def _plain(body: str) -> str:
    return html.unescape(TAG.sub("", body))


def _without_sounds(text: str) -> tuple[str, list[str]]:
    """Returns a text without what is not said: notes in brackets, sounds in parentheses, signs of music."""
    notes = [note for note in SIDE_NOTE.findall(text) if note[0] == "[" or SOUND.search(note)]
    for note in notes:
        text = text.replace(note, " ", 1)
    words = " ".join(text.split())
    if words and not any(map(str.isalnum, words)):
        return "", [*notes, words]
    return words, notes


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
