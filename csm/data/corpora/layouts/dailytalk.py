"""DailyTalk (K. Lee et al., ICASSP 2023; CC BY-SA 4.0), https://github.com/keonlee9420/DailyTalk.

    data/D/T_S_dD.wav, data/D/T_S_dD.txt   turn T of dialogue D by speaker S (0 or 1)
    metadata.json                          {D: {T: {"emotion", ...}}}

Two people speak all dialogues, so that S names a person. "no emotion" is no label.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from csm.data.corpora.layouts.fields import label_of, text_of
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn
from csm.data.corpora.layouts.tree import MALFORMED, Tree

NAME = re.compile(r"(\d+)_(\d+)_d(\d+)")


def recognise(tree: Tree) -> str | None:
    """Counts the turns by their names."""
    found = sum(NAME.fullmatch(path.stem) is not None for path in tree.audio())
    return f"{found} turns T_S_dD.wav" if found else None


def read(tree: Tree) -> Iterator[SourceConversation]:
    """Yields one conversation for each dialogue."""
    emotions = _emotions(tree)
    dialogues: dict[int, list[tuple[int, SourceTurn]]] = defaultdict(list)
    for audio in tree.audio():
        if (found := NAME.fullmatch(audio.stem)) is None:
            continue
        place, speaker, dialogue = found.groups()
        transcript = audio.with_suffix(".txt")
        try:
            if not tree.has(transcript):
                raise ValueError(f"its transcript {transcript.name} is missing")
            text = text_of(tree.text(transcript))
        except ValueError as error:
            tree.reject_turn(tree.shown(audio), error)
            continue
        tree.use(audio, transcript)
        emotion = emotions.get((dialogue, place))
        turn = SourceTurn(speaker=f"dailytalk-{speaker}", text=text, audio=audio, emotion=emotion)
        dialogues[int(dialogue)].append((int(place), turn))
    for dialogue in sorted(dialogues):
        turns = [turn for _, turn in sorted(dialogues[dialogue], key=lambda entry: entry[0])]
        yield SourceConversation(id=f"d{dialogue}", turns=turns)


def _emotions(tree: Tree) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for path in tree.files:
        if path.name != "metadata.json":
            continue
        tree.used.add(path)
        for (dialogue, place), entry in tree.guarded(path, _entries(tree, path)):
            try:
                if (label := label_of(entry.get("emotion"), "emotion")) not in (None, "no emotion"):
                    found[dialogue, place] = str(label)
            except MALFORMED as error:
                tree.reject_turn(f"{tree.shown(path)}, {dialogue}, {place}", error)
    return found


def _entries(tree: Tree, path: Path) -> Iterator[tuple[tuple[str, str], Any]]:
    for dialogue, turns in tree.json(path).items():
        if not isinstance(turns, dict):
            kind = type(turns).__name__
            tree.reject_turn(f"{tree.shown(path)}, {dialogue}", f"is {kind}: expected its turns by number")
            continue
        for place, entry in turns.items():
            yield (dialogue, place), entry


LAYOUT = Layout(
    name="dailytalk",
    looks_for="data/D/T_S_dD.wav with .txt (DailyTalk)",
    recognise=recognise,
    read=read,
)
