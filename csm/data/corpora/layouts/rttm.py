"""Diarisation in RTTM with the words in STM, CTM, or one line of text for each line of the RTTM.

    NAME.rttm   SPEAKER file channel start duration <NA> <NA> speaker <NA> <NA>
    NAME.stm    file channel speaker start end [<label>] text (needs no RTTM)
    NAME.ctm    file channel start duration word [confidence]
    NAME.txt    one line for each line of the RTTM

RTTM and CTM count channels from 1. Files are found by the name in the lines. Of an RTTM without words,
--transcribe takes the speakers and times, and recognises the words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from csm.data.corpora.layouts.fields import channel_of, seconds_of, speaker_of, text_of
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn, Untranscribed
from csm.data.corpora.layouts.tree import Tree
from csm.data.manifest import Segment
from csm.data.word_times import Word


class Spoken(NamedTuple):
    """One line: its place in the file, recording, channel from 0, speaker, times, text ("" is unknown)."""

    where: str
    file: str
    channel: int
    speaker: str
    start: float
    end: float
    text: str = ""
    words: tuple[Word, ...] = ()


def recognise(tree: Tree) -> str | None:
    """Counts the .rttm and .stm files."""
    rttm, stm = len(tree.ending(".rttm")), len(tree.ending(".stm"))
    return f"{rttm} .rttm, {stm} .stm" if rttm + stm else None


def read(tree: Tree) -> Iterator[SourceConversation | Untranscribed]:
    """Yields one conversation for each recording that a line names."""
    lines: dict[tuple[Path, str], list[Spoken]] = defaultdict(list)
    wordless: dict[tuple[Path, str], list[Spoken]] = defaultdict(list)
    words = _words(tree)
    for path in tree.ending(".stm"):
        for spoken in _lines(tree, path, _stm):
            lines[path, spoken.file].append(spoken)
    for path in tree.ending(".rttm"):
        if path.with_suffix(".stm") in tree.used - set(tree.files_rejected):
            tree.reject_file(path, "the .stm beside it has times and texts; the .rttm is not needed")
            continue
        found = list(_lines(tree, path, _rttm))
        has_texts = path.with_suffix(".txt") in tree.files
        for spoken in found:
            if not has_texts and spoken.file not in words:
                wordless[path, spoken.file].append(spoken)
        known = [spoken for spoken in found if has_texts or spoken.file in words]
        for spoken in _with_texts(tree, path, known, words):
            lines[path, spoken.file].append(spoken)
    for path, audio, all_spoken in _with_audio(tree, wordless):
        tree.use(audio, path)
        spans = tuple(_spans(tree, all_spoken))
        yield Untranscribed(id=tree.shown(audio.with_suffix("")), audio=audio, spans=spans)
    for path, audio, all_spoken in _with_audio(tree, lines):
        tree.use(audio, path)
        turns = [
            SourceTurn(
                speaker=spoken.speaker,
                text=spoken.text,
                audio=audio,
                start=spoken.start,
                end=spoken.end,
                channel=spoken.channel,
                words=spoken.words,
            )
            for spoken in all_spoken
        ]
        yield SourceConversation(id=tree.shown(audio.with_suffix("")), turns=turns, timeline=True)


def _with_audio(
    tree: Tree, lines: dict[tuple[Path, str], list[Spoken]]
) -> Iterator[tuple[Path, Path, list[Spoken]]]:
    """Yields (transcript, recording, lines) of each recording; lines without one are rejected."""
    for (path, file), spoken in lines.items():
        try:
            audio = tree.audio_beside(path, file)
        except ValueError as error:
            for line in spoken:
                tree.reject_turn(line.where, error, line.end - line.start)
            continue
        yield path, audio, spoken


def _spans(tree: Tree, lines: list[Spoken]) -> Iterator[Segment]:
    for line in lines:
        try:
            yield Segment(speaker=line.speaker, start=line.start, end=line.end, channel=line.channel)
        except ValueError as error:
            tree.reject_turn(line.where, error)


def _with_texts(tree: Tree, path: Path, found: list[Spoken], words: dict[str, list]) -> Iterator[Spoken]:
    beside = path.with_suffix(".txt")
    texts: list[str] = []
    if beside in tree.files:
        tree.used.add(beside)
        texts = [line for _, line in tree.lines(beside)]
        if len(texts) != len(found):
            reason = f"{tree.shown(beside)} has {len(texts)} lines: expected {len(found)}, as the .rttm"
            for spoken in found:
                tree.reject_turn(spoken.where, reason)
            return
    for number, spoken in enumerate(found):
        inside = tuple(
            word
            for channel, word in words.get(spoken.file, ())
            if channel == spoken.channel and spoken.start <= (word.start + word.end) / 2 < spoken.end
        )
        text = texts[number] if texts else " ".join(word.text for word in inside)
        try:
            yield spoken._replace(text=text_of(text), words=() if texts else inside)
        except ValueError:
            reason = "no word of the .ctm lies in it: expected one; correct its times"
            tree.reject_turn(spoken.where, reason, spoken.end - spoken.start)


def _words(tree: Tree) -> dict[str, list[tuple[int, Word]]]:
    found: dict[str, list[tuple[int, Word]]] = defaultdict(list)
    for path in tree.ending(".ctm"):
        for spoken in _lines(tree, path, _ctm):
            found[spoken.file].append((spoken.channel, Word(spoken.text, spoken.start, spoken.end)))
    return found


def _lines(tree: Tree, path: Path, parse) -> Iterator[Spoken]:
    tree.used.add(path)
    for where, line in tree.lines(path):
        if line.startswith(";;"):
            continue
        try:
            if (spoken := parse(where, line.split())) is not None:
                yield spoken
        except (ValueError, IndexError) as error:
            reason = "has too few columns" if isinstance(error, IndexError) else error
            tree.reject_turn(where, reason)


def _rttm(where: str, parts: list[str]) -> Spoken | None:
    if parts[0] != "SPEAKER":
        return None  # other records, such as SPKR-INFO, hold no speech
    start = seconds_of(parts[3], "start")
    end = start + seconds_of(parts[4], "duration")
    return Spoken(where, parts[1], _channel(parts[2]), speaker_of(parts[7]), start, end)


def _stm(where: str, parts: list[str]) -> Spoken | None:
    text = parts[5:]
    if text and text[0].startswith("<") and text[0].endswith(">"):
        text = text[1:]
    if " ".join(text).lower() == "ignore_time_segment_in_scoring":
        raise ValueError("its text is left out of scoring: there are no words")
    start, end = seconds_of(parts[3], "start"), seconds_of(parts[4], "end")
    speaker = speaker_of(parts[2])
    return Spoken(where, parts[0], _channel(parts[1]), speaker, start, end, text_of(" ".join(text)))


def _ctm(where: str, parts: list[str]) -> Spoken | None:
    start = seconds_of(parts[2], "start")
    end = start + seconds_of(parts[3], "duration")
    return Spoken(where, parts[0], _channel(parts[1]), "", start, end, text_of(parts[4]))


def _channel(text: str) -> int:
    if text in ("A", "B"):
        return "AB".index(text)
    try:
        return max(0, channel_of(text) - 1)
    except ValueError as error:
        raise ValueError(f"channel is {text!r}: expected 1, 2, ... or A, B") from error


LAYOUT = Layout(
    name="rttm",
    looks_for="NAME.rttm with NAME.ctm or NAME.txt (a line each), or NAME.stm",
    recognise=recognise,
    read=read,
)
