"""AMI meetings (J. Carletta et al., 2005; CC BY 4.0), https://groups.inf.ed.ac.uk/ami/download/.

    M/audio/M.Headset-0.wav ...     one file for each participant, recorded at the same time
    words/M.A.words.xml             <w starttime endtime>Okay</w> of participant A (of Headset-0)
    corpusResources/meetings.xml    <speaker nxt_agent="A" channel="0" global_name="MEE006">

Words become turns by their pauses. Words without times and sounds (laughter, gaps) are left out and counted.
"""

from __future__ import annotations

import re
import string
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from csm.data.corpora.layouts.fields import seconds_of
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn
from csm.data.corpora.layouts.tree import MALFORMED, Tree
from csm.data.word_times import Word

WORDS = re.compile(r"(\w+)\.([A-Z])\.words\.xml")


def recognise(tree: Tree) -> str | None:
    """Counts the files of words."""
    found = sum(WORDS.fullmatch(path.name) is not None for path in tree.files)
    return f"{found} M.A.words.xml" if found else None


def read(tree: Tree) -> Iterator[SourceConversation]:
    """Yields one conversation for each meeting that has headset recordings."""
    agents = _agents(tree)
    headsets = {path.name: path for path in tree.audio()}
    meetings: dict[str, list[SourceTurn]] = defaultdict(list)
    for path in tree.files:
        if (found := WORDS.fullmatch(path.name)) is None:
            continue
        meeting, agent = found.groups()
        number = string.ascii_uppercase.index(agent)
        speaker, channel = agents.get((meeting, agent), (f"{meeting}-{agent}", str(number)))
        audio = headsets.get(f"{meeting}.Headset-{channel}.wav")
        if audio is None:
            tree.reject_file(path, f"its recording {meeting}.Headset-{channel}.wav is missing")
            continue
        try:
            words = list(_words(tree, path))
        except (*MALFORMED, LookupError, ElementTree.ParseError) as error:
            tree.reject_file(path, error)
            continue
        tree.use(audio, path)
        meetings[meeting] += [
            SourceTurn(speaker=speaker, text=w.text, audio=audio, start=w.start, end=w.end, words=(w,))
            for w in words
        ]
    for meeting, turns in meetings.items():
        yield SourceConversation(id=meeting, turns=turns, timeline=True, join=True)


def _words(tree: Tree, path: Path) -> Iterator[Word]:
    """Yields the words with times; punctuation is joined to the word before it."""
    held: Word | None = None
    lost: Counter[str] = Counter()
    for element in ElementTree.fromstring(path.read_bytes()):  # its first line may name another encoding
        text = " ".join((element.text or "").split())
        if element.tag != "w" or not text:
            lost["word without letters" if element.tag == "w" else element.tag] += 1
            continue
        if element.get("punc") == "true":
            held = held._replace(text=held.text + text) if held else None
            continue
        if held:
            yield held
        held = _timed(text, element.get("starttime"), element.get("endtime"))
        lost["word without times"] += held is None
    if held:
        yield held
    for kind, count in sorted((+lost).items()):
        tree.reject_turn(f"{tree.shown(path)}, {count} x {kind}", "holds no word with times")


def _timed(text: str, start: str | None, end: str | None) -> Word | None:
    try:
        word = Word(text, seconds_of(start, "starttime"), seconds_of(end, "endtime"))
    except ValueError:
        return None
    return word if word.start < word.end else None


def _agents(tree: Tree) -> dict[tuple[str, str], tuple[str, str]]:
    """Returns (meeting, agent) -> (name of the person, channel)."""
    found = {}
    for path in tree.files:
        if path.name != "meetings.xml":
            continue
        tree.used.add(path)
        try:
            meetings = list(ElementTree.fromstring(path.read_bytes()).iter("meeting"))
        except (*MALFORMED, LookupError, ElementTree.ParseError) as error:
            tree.reject_file(
                path, f"is no XML that can be read ({error}): people are named after their agents"
            )
            continue
        for meeting in meetings:
            for speaker in meeting.iter("speaker"):
                key = (meeting.get("observation", ""), speaker.get("nxt_agent", ""))
                found[key] = (speaker.get("global_name", "-".join(key)), speaker.get("channel", "0"))
    return found


LAYOUT = Layout(
    name="ami",
    looks_for="words/M.A.words.xml and M.Headset-0.wav (AMI)",
    recognise=recognise,
    read=read,
)
