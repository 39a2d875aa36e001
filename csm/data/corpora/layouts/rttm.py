"""Diarisation in RTTM with the words in STM, CTM, or one line of text for each line of the RTTM.

    NAME.rttm   SPEAKER file channel start duration <NA> <NA> speaker <NA> <NA>
    NAME.stm    file channel speaker start end [<label>] text (needs no RTTM)
    NAME.ctm    file channel start duration word [confidence]
    NAME.txt    one line for each line of the RTTM

Channels count from 1; where a line of a file says 0, those of its recording count from 0 there. A and B are
the first and the second. Recordings are found by the name in the lines. Of an RTTM without words,
--transcribe takes the speakers and times, and recognises the words.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from csm.audio.containers import channels_of
from csm.data.corpora.layouts.fields import channel_of, seconds_of, speaker_of, text_of
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn, Untranscribed
from csm.data.corpora.layouts.tree import Tree
from csm.data.manifest import Segment
from csm.data.word_times import Word


class Spoken(NamedTuple):
    """One line: its place in the file, recording, channel from 0, speaker, times, text ("" is unknown).

    `first` is the number of the first channel in the file.
    """

    where: str
    file: str
    channel: int
    speaker: str
    start: float
    end: float
    text: str = ""
    words: tuple[Word, ...] = ()
    first: int = 1


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
        if (stm := path.with_suffix(".stm")) in tree.used and stm not in tree.files_rejected:
            tree.reject_file(path, "the .stm beside it has times and texts; the .rttm is not needed")
            continue
        found = list(_lines(tree, path, _rttm))
        has_texts = tree.has(path.with_suffix(".txt"))
        for spoken in found:
            if not has_texts and spoken.file not in words:
                wordless[path, spoken.file].append(spoken)
        known = [spoken for spoken in found if has_texts or spoken.file in words]
        for spoken in _with_texts(tree, path, known, words):
            lines[path, spoken.file].append(spoken)
    for audio, all_spoken in _with_audio(tree, wordless):
        if spans := tuple(_spans(tree, all_spoken)):  # without any, speakers and times would be guessed
            yield Untranscribed(id=tree.shown(audio.with_suffix("")), audio=audio, spans=spans)
    for audio, all_spoken in _with_audio(tree, lines):
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
) -> Iterator[tuple[Path, list[Spoken]]]:
    """Yields (recording, lines) of each recording; lines without one or its channel are rejected."""
    for (path, file), spoken in lines.items():
        try:
            audio = tree.audio_beside(path, file)
        except ValueError as error:
            for line in spoken:
                tree.reject_turn(line.where, error, line.end - line.start)
            continue
        tree.use(audio, path)
        yield audio, list(_on_channels(tree, audio, spoken))


def _on_channels(tree: Tree, audio: Path, lines: list[Spoken]) -> Iterator[Spoken]:
    """Yields the lines whose channel the recording has; of what is no audio all: the importer says why."""
    try:
        channels = channels_of(audio)
    except ValueError:
        yield from lines
        return
    for line in lines:
        if line.channel < channels:
            yield line
            continue
        expected = ", ".join(str(line.first + number) for number in range(channels))
        reason = f"channel is {line.first + line.channel}: expected {expected}, those of its recording"
        tree.reject_turn(line.where, reason, line.end - line.start)


def _spans(tree: Tree, lines: list[Spoken]) -> Iterator[Segment]:
    for line in lines:
        try:
            yield Segment(speaker=line.speaker, start=line.start, end=line.end, channel=line.channel)
        except ValueError as error:
            tree.reject_turn(line.where, error)


def _with_texts(tree: Tree, path: Path, found: list[Spoken], words: dict[str, list]) -> Iterator[Spoken]:
    beside = path.with_suffix(".txt")
    texts: list[str] = []
    if tree.has(beside):
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


def _lines(tree: Tree, path: Path, parse: Callable[[str, list[str]], Spoken | None]) -> Iterator[Spoken]:
    """Yields the lines of a file, with channels from 0."""
    found = list(_stated(tree, path, parse))
    from_zero = {spoken.file for spoken in found if spoken.channel == 0}
    for spoken in found:
        first = 0 if spoken.file in from_zero else 1
        yield spoken._replace(channel=spoken.channel - first, first=first)


def _stated(tree: Tree, path: Path, parse: Callable[[str, list[str]], Spoken | None]) -> Iterator[Spoken]:
    """Yields the lines of a file, with channels as it counts them."""
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
    """Returns the number of a channel as the file states it; A and B are 1 and 2."""
    try:
        return 1 + "AB".index(text) if text in ("A", "B") else channel_of(text)
    except ValueError as error:
        raise ValueError(f"channel is {text!r}: expected 1, 2, ... or A, B") from error


LAYOUT = Layout(
    name="rttm",
    looks_for="NAME.rttm with NAME.ctm or NAME.txt (a line each), or NAME.stm",
    recognise=recognise,
    read=read,
)
