"""Praat's TextGrids, long and short form: NAME.TextGrid beside NAME.wav, one interval tier a speaker.

Tiers of the Montreal Forced Aligner, "Ann - words" or "words", hold words, which are joined into turns; tiers
of phones and point tiers hold none. Where a speaker has a tier of utterances too, words are put into these.
With several channels, the tiers of speakers are the channels in their order.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from csm.audio.containers import channels_of
from csm.data.corpora.layouts.fields import seconds_of, speaker_of, text_of
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn
from csm.data.corpora.layouts.tree import Tree
from csm.data.word_times import Word

TOKEN = re.compile(r'"((?:[^"]|"")*)"|(?<![\w"\[])(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)(?![\w"\]])')
WORDS, PHONES = re.compile(r"(?:(.*?)\s*-\s*)?words?$", re.I), re.compile(r"(.*-\s*)?phon(e|eme)s?$", re.I)


class Interval(NamedTuple):
    """A labelled interval of a tier."""

    start: float
    end: float
    text: str


def recognise(tree: Tree) -> str | None:
    """Counts the TextGrids."""
    found = len(tree.ending(".textgrid"))
    return f"{found} .TextGrid" if found else None


def read(tree: Tree) -> Iterator[SourceConversation]:
    """Yields one conversation for each TextGrid."""
    for path in tree.ending(".textgrid"):
        yield from tree.guarded(path, _file(tree, path))


def _file(tree: Tree, path: Path) -> Iterator[SourceConversation]:
    audio = tree.audio_beside(path)
    name = tree.shown(audio.with_suffix(""))
    content = tree.text(path)
    try:
        utterances, words = _tiers(content, audio.parent.name)
    except IndexError as error:
        raise ValueError("ends early: expected all tiers and intervals that it states; export it") from error
    channels = _channels([*dict.fromkeys([*utterances, *words])], channels_of(audio))
    tree.use(audio, path)
    turns = [
        SourceTurn(
            speaker=speaker,
            text=text_of(part.text),
            audio=audio,
            start=part.start,
            end=part.end,
            channel=channels[speaker],
            words=_within(part, words.get(speaker, [])) if utterances else (Word(part.text, *part[:2]),),
        )
        for speaker, intervals in (utterances or words).items()
        for part in intervals
    ]
    if utterances:
        for speaker in sorted(set(words) - set(utterances)):
            tree.reject_turn(f"{name}, tier of words of {speaker}", "this speaker has no utterances")
    yield SourceConversation(id=name, turns=turns, timeline=True, join=not utterances)


def _channels(speakers: list[str], channels: int) -> dict[str, int]:
    if channels > 1 and len(speakers) != channels:
        raise ValueError(f"the recording has {channels} channels, {len(speakers)} speakers: expected as many")
    return {speaker: number if channels > 1 else 0 for number, speaker in enumerate(speakers)}


def _within(part: Interval, words: list[Interval]) -> tuple[Word, ...]:
    return tuple(
        Word(word.text, word.start, word.end)
        for word in words
        if part.start <= (word.start + word.end) / 2 < part.end
    )


def _tiers(content: str, folder: str) -> tuple[dict[str, list[Interval]], dict[str, list[Interval]]]:
    """Returns speaker -> utterances and speaker -> words; empty labels are silence."""
    values = [
        quoted.replace('""', '"') if not number else float(number) for quoted, number in _tokens(content)
    ]
    if values[:2] != ["ooTextFile", "TextGrid"]:
        raise ValueError('is no TextGrid: expected "ooTextFile" and "TextGrid" in its first lines')
    utterances: dict[str, list[Interval]] = {}
    words: dict[str, list[Interval]] = {}
    index = 5  # after two strings, start, end and the number of tiers
    while index < len(values):
        kind, name, count = values[index], str(values[index + 1]), int(values[index + 4])
        index += 5
        if kind == "TextTier":
            index += 2 * count
            continue
        if kind != "IntervalTier":
            raise ValueError(f"has a tier of kind {kind!r}: expected IntervalTier or TextTier")
        intervals = [_interval(values[at : at + 3]) for at in range(index, index + 3 * count, 3)]
        index += 3 * count
        if PHONES.fullmatch(name):
            continue
        aligned = WORDS.fullmatch(name)
        speaker = speaker_of((aligned[1] or folder) if aligned else name, "name of a tier")
        kept = [interval for interval in intervals if interval.text]
        (words if aligned else utterances).setdefault(speaker, []).extend(kept)
    return utterances, words


def _interval(values: list) -> Interval:
    start, end, text = values
    return Interval(seconds_of(start, "xmin"), seconds_of(end, "xmax"), " ".join(str(text).split()))


def _tokens(content: str) -> list[tuple[str, str]]:
    """Returns strings and free-standing numbers; the rest of the long form only names them."""
    lines = (re.sub(r"\[\d*\]:?", "", line) if '"' not in line else line for line in content.splitlines())
    return TOKEN.findall("\n".join(lines))


LAYOUT = Layout(
    name="textgrid",
    looks_for="NAME.TextGrid beside NAME.wav",
    recognise=recognise,
    read=read,
)
