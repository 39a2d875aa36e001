"""Fisher English (LDC2004S13, LDC2004T19, LDC2005S13, LDC2005T19), telephone calls of two channels.

    .../data/trans/000/fe_03_00001.txt    "3.76 5.54 A: and i generally prefer"
    .../fe_03_00001.sph or .wav           anywhere in the folder
    fe_03_p1_calldata.tbl                 CALL_ID,...,APIN,...,BPIN,...: the people

Double brackets of uncertain words are removed, and marks of sounds such as [laughter] and [noise].
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from csm.data.corpora.layouts.fields import field, seconds_of, speaker_of, text_of
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn
from csm.data.corpora.layouts.tree import Tree

NAME = re.compile(r"fe_03_(\d{5})")
LINE = re.compile(r"([\d.]+) ([\d.]+) ([AB]): ?(.*)")
MARKS = re.compile(r"\[[^\]]*\]|\(\(|\)\)")


def recognise(tree: Tree) -> str | None:
    """Counts the transcripts."""
    found = sum(NAME.fullmatch(path.stem) is not None for path in tree.ending(".txt"))
    return f"{found} fe_03_NNNNN.txt" if found else None


def read(tree: Tree) -> Iterator[SourceConversation]:
    """Yields one conversation for each call."""
    people = _people(tree)
    recordings: dict[str, list[Path]] = defaultdict(list)
    for audio in tree.audio():
        recordings[audio.stem].append(audio)
    for path in tree.ending(".txt"):
        if (found := NAME.fullmatch(path.stem)) is None:
            continue
        if not recordings[path.stem]:
            tree.reject_file(path, f"its recording {path.stem}.sph or .wav is missing")
            continue
        if len(choices := recordings[path.stem]) > 1:
            names = ", ".join(map(tree.shown, choices))
            tree.reject_file(path, f"its recordings are {names}: expected one; remove the others")
            continue
        tree.use(choices[0], path)
        turns = list(_turns(tree, path, choices[0], people.get(found[1], {})))
        yield SourceConversation(id=path.stem, turns=turns, timeline=True)


def _turns(tree: Tree, path: Path, audio: Path, people: dict[str, str]) -> Iterator[SourceTurn]:
    for where, line in tree.lines(path):
        if line.startswith("#"):
            continue
        try:
            if (found := LINE.fullmatch(line.strip())) is None:
                raise ValueError(f'is {line!r}: expected "start end A: text"')
            start, end, side, text = found.groups()
            yield SourceTurn(
                speaker=people.get(side, f"{path.stem}-{side}"),
                text=text_of(MARKS.sub(" ", text)),
                audio=audio,
                start=seconds_of(start, "start"),
                end=seconds_of(end, "end"),
                channel="AB".index(side),
            )
        except ValueError as error:
            tree.reject_turn(where, error)


def _people(tree: Tree) -> dict[str, dict[str, str]]:
    """Returns call -> side -> name, from the tables of calls."""
    found = {}
    for path in tree.files:
        if path.name.endswith("calldata.tbl"):
            tree.used.add(path)
            for where, row in tree.table(path):
                try:
                    call = text_of(field(row, "CALL_ID"), "CALL_ID")
                    sides = {side: row.get(f"{side}PIN") for side in "AB"}
                    named = {s: f"fisher-{speaker_of(pin, 'PIN')}" for s, pin in sides.items() if pin}
                except ValueError as error:
                    tree.reject_turn(where, error)
                    continue
                found[call] = named
    return found


LAYOUT = Layout(
    name="fisher",
    looks_for="fe_03_NNNNN.txt and fe_03_NNNNN.sph (Fisher)",
    recognise=recognise,
    read=read,
)
