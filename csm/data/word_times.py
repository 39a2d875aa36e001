"""The times of words: words.jsonl of a corpus folder, lines {"turn", "words": [[text, start, end], ...]}.

Times are seconds from the beginning of the turn's audio file, as the turn's own. Turns without known words
are not in the file, a corpus without any has no file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from csm.data.manifest import write_jsonl

WORDS_NAME = "words.jsonl"


class Word(NamedTuple):
    """A word with its boundaries in seconds."""

    text: str
    start: float
    end: float


def write_words(folder: Path, words: Iterable[tuple[str, Sequence[Word]]]) -> None:
    """Writes words.jsonl, one line a turn; nothing where there is no word.

    Args:
        folder: Folder of the corpus.
        words: Turn id and words of each turn.
    """
    spoken = ((turn, found) for turn, found in words if found)
    if (first := next(spoken, None)) is not None:
        lines = chain([first], spoken)
        write_jsonl(
            folder / WORDS_NAME, ({"turn": turn, "words": [list(w) for w in found]} for turn, found in lines)
        )


def read_words(folder: str | Path) -> dict[str, tuple[Word, ...]]:
    """Reads the words of every turn that has some; empty where the corpus has no words.jsonl.

    Raises:
        ValueError: A line holds something else; the message names it.
    """
    path = Path(folder) / WORDS_NAME
    if not path.is_file():
        return {}
    words = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            words[str(entry["turn"])] = tuple(
                Word(str(text), float(start), float(end)) for text, start, end in entry["words"]
            )
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path}, line {number}: expected turn and words [text, start, end]; prepare the corpus again"
            ) from error
    return words


def rounded(words: Iterable[Word]) -> tuple[Word, ...]:
    """Returns words with their times at the manifest's resolution of a microsecond."""
    return tuple(Word(word.text, round(word.start, 6), round(word.end, 6)) for word in words)
