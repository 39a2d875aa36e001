"""Fisher English (LDC2004S13, LDC2004T19, LDC2005S13, LDC2005T19), telephone calls of two channels.

    .../data/trans/000/fe_03_00001.txt    "3.76 5.54 A: and i generally prefer"
    .../fe_03_00001.sph or .wav           anywhere in the folder
    fe_03_p1_calldata.tbl                 CALL_ID,...,APIN,...,BPIN,...: the people

Double brackets of uncertain words are removed, and marks of sounds such as [laughter] and [noise].
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from csm.data.corpora.layouts.fields import seconds_of, text_of
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
    recordings = {path.stem: path for path in tree.audio()}
    for path in tree.ending(".txt"):
        if (found := NAME.fullmatch(path.stem)) is None:
            continue
        if (audio := recordings.get(path.stem)) is None:
            tree.reject_file(path, f"its recording {path.stem}.sph or .wav is missing")
            continue
        tree.used.update({path, audio})
        turns = list(_turns(tree, path, audio, people.get(found[1], {})))
        yield SourceConversation(id=path.stem, turns=turns, timeline=True)


def _turns(tree: Tree, path: Path, audio: Path, people: dict[str, str]) -> Iterator[SourceTurn]:
    for number, line in enumerate(tree.text(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
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
            tree.reject_turn(f"{tree.shown(path)}, line {number}", error)


def _people(tree: Tree) -> dict[str, dict[str, str]]:
    """Returns call -> side -> name, from the tables of calls."""
    found = {}
    for path in tree.files:
        if path.name.endswith("calldata.tbl"):
            tree.used.add(path)
            for row in csv.DictReader(tree.text(path).splitlines()):
                sides = {side: row.get(f"{side}PIN") for side in "AB"}
                found[str(row.get("CALL_ID"))] = {s: f"fisher-{pin}" for s, pin in sides.items() if pin}
    return found


LAYOUT = Layout(
    name="fisher",
    looks_for="fe_03_NNNNN.txt and fe_03_NNNNN.sph (Fisher)",
    recognise=recognise,
    read=read,
)
