"""The script of Flight of the Amazon Queen: which role says what in which conversation.

The table is in the package, so that other corpora can have its texts without its audio.
"""

from __future__ import annotations

import csv
import gzip
import re
from dataclasses import dataclass
from pathlib import Path

EXCERPT_FOLDER = Path(__file__).resolve().parent.parent / "excerpt"


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of the script.

    Attributes:
        clip: Name of the clip.
        speaker: Role name.
        conversation: Id of the conversation.
        turn: Index of the turn in the conversation.
        segment: Index of the clip in the turn.
        text: Text with the script's marks.
    """

    clip: str
    speaker: str
    conversation: str
    turn: int
    segment: int
    text: str


def read_lines() -> list[Line]:
    """Returns the script, 6,544 lines ordered by conversation."""
    with gzip.open(EXCERPT_FOLDER / "lines.tsv.gz", "rt", encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        return [
            Line(
                clip=row["clip"],
                speaker=row["speaker"],
                conversation=row["conversation"],
                turn=int(row["turn"]),
                segment=int(row["segment"]),
                text=row["text"],
            )
            for row in rows
        ]


def clean_text(text: str) -> str:
    """Removes from a line what is not spoken.

    The script has marks for the game's fonts: `^_` (a trademark sign), `@` (a heart) and a row of symbols for
    a curse are removed. Sounds, written `<gulp>` or `(sigh)`, become lower case in round brackets, also where
    a text holds nothing else.
    """
    text = text.replace("^_", "").replace("@", "")
    text = re.sub(r"[(!]*[#$&][#$&(!]*\s*,?\s*", "", text)
    text = re.sub(r"[<(]([A-Za-z]+)[>)]", lambda match: f"({match[1].lower()})", text)
    return re.sub(r"\s+", " ", text).strip()
