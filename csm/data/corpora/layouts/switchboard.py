"""Switchboard-1 (LDC97S62) with the Mississippi State transcripts, telephone calls of two channels.

    20/2001/sw2001A-ms98-a-trans.text   "sw2001A-ms98-a-0001 0.000000 0.977625 [silence]"
    20/2001/sw2001A-ms98-a-word.text    the same with a line for each word (optional)
    sw02001.sph or .wav                 anywhere in the folder

Marks of sounds are removed, [laughter-yes] becomes "yes", th[at]- "th-". Lines without a word are counted.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from csm.data.corpora.layouts.fields import seconds_of, text_of
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn
from csm.data.corpora.layouts.tree import Tree
from csm.data.word_times import Word

NAME = re.compile(r"sw(\d{4})([AB])-ms98-a-trans\.text")
MARKS = (
    (re.compile(r"\[laughter-([^\]]*)\]"), r"\1"),
    (re.compile(r"\[([^\]/]+)/([^\]]+)\]"), r"\2"),  # [said/meant]
    (re.compile(r"(?<=\w)\[[^\]]*\]-|-\[[^\]]*\](?=\w)"), "-"),  # cut words
    (re.compile(r"\[[^\]]*\]|<[^>]*>"), " "),
    (re.compile(r"[{}]|(?<=\w)_1\b"), ""),
)


def recognise(tree: Tree) -> str | None:
    """Counts the transcripts."""
    found = sum(NAME.fullmatch(path.name) is not None for path in tree.files)
    return f"{found} swNNNNA-ms98-a-trans.text" if found else None


def read(tree: Tree) -> Iterator[SourceConversation]:
    """Yields one conversation for each call."""
    recordings = {path.stem: path for path in tree.audio()}
    calls: dict[str, list[SourceTurn]] = defaultdict(list)
    for path in tree.files:
        if (found := NAME.fullmatch(path.name)) is None:
            continue
        call, side = found.groups()
        audio = recordings.get(f"sw0{call}") or recordings.get(f"sw{call}")
        if audio is None:
            tree.reject_file(path, f"its recording sw0{call}.sph or .wav is missing")
            continue
        tree.use(audio, path)
        calls[call] += list(_turns(tree, path, audio, f"sw{call}-{side}", "AB".index(side)))
    for call, turns in calls.items():
        yield SourceConversation(id=f"sw{call}", turns=turns, timeline=True)


def _turns(tree: Tree, path: Path, audio: Path, speaker: str, channel: int) -> Iterator[SourceTurn]:
    words = _words(tree, path.with_name(path.name.replace("-trans", "-word")), audio)
    for where, line in tree.lines(path):
        parts = line.split(None, 3)
        try:
            if len(parts) < 4:
                raise ValueError(f'is {line!r}: expected "id start end text"')
            yield SourceTurn(
                speaker=speaker,
                text=text_of(unmarked(parts[3])),
                audio=audio,
                start=seconds_of(parts[1], "start"),
                end=seconds_of(parts[2], "end"),
                channel=channel,
                words=tuple(words.get(parts[0], ())),
                id=parts[0],
            )
        except ValueError as error:
            tree.reject_turn(where, error)


def _words(tree: Tree, path: Path, audio: Path) -> dict[str, list[Word]]:
    """Returns turn -> words; none of a turn in which one has no times: the others are not its whole text."""
    found: dict[str, list[Word]] = defaultdict(list)
    if not tree.has(path):
        return found
    tree.use(audio, path)
    incomplete = set()
    for where, line in tree.lines(path):
        parts = line.split(None, 3)
        try:
            if len(parts) < 4:
                raise ValueError(f'is {line!r}: expected "id start end word"')
            if text := " ".join(unmarked(parts[3]).split()):
                times = seconds_of(parts[1], "start"), seconds_of(parts[2], "end")
                found[parts[0]].append(Word(text, *times))
        except ValueError as error:
            tree.reject_turn(where, f"{error}; the word times of its turn are left out")
            incomplete.add(parts[0])
    return {turn: words for turn, words in found.items() if turn not in incomplete}


def unmarked(text: str) -> str:
    """Returns a line without the transcribers' marks."""
    for pattern, kept in MARKS:
        text = pattern.sub(kept, text)
    return text


LAYOUT = Layout(
    name="switchboard",
    looks_for="swNNNNA-ms98-a-trans.text and sw0NNNN.sph (Switchboard)",
    recognise=recognise,
    read=read,
)
