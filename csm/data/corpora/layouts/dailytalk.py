"""DailyTalk (K. Lee et al., ICASSP 2023; CC BY-SA 4.0), https://github.com/keonlee9420/DailyTalk.

    data/D/T_S_dD.wav, data/D/T_S_dD.txt   turn T of dialogue D by speaker S (0 or 1)
    metadata.json                          {D: {T: {"emotion", ...}}}

Two people speak all dialogues, so that S names a person. "no emotion" is no label.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from csm.data.corpora.layouts.fields import text_of
from csm.data.corpora.layouts.source import Layout, SourceConversation, SourceTurn
from csm.data.corpora.layouts.tree import Tree

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
            if transcript not in tree.files:
                raise ValueError(f"its transcript {transcript.name} is missing")
            text = text_of(tree.text(transcript))
        except ValueError as error:
            tree.reject_turn(tree.shown(audio), error)
            continue
        tree.used.update({audio, transcript})
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
        content: Any = tree.json(path)
        for dialogue, turns in content.items():
            for place, entry in turns.items():
                if (label := entry.get("emotion")) and label != "no emotion":
                    found[str(dialogue), str(place)] = str(label)
    return found


LAYOUT = Layout(
    name="dailytalk",
    looks_for="data/D/T_S_dD.wav with .txt (DailyTalk)",
    recognise=recognise,
    read=read,
)
