"""Letters of a text, as CTC heads spell it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from num2words import num2words

from csm.text_normalisation import spoken_text

#: What CTC heads spell; index 0 is CTC's blank.
LETTERS = "_abcdefghijklmnopqrstuvwxyz' "

# Whole numbers, which `spoken_text` leaves to the lexicon; longer ones have no name.
_WHOLE = re.compile(r"(\d{1,3}(?:,\d{3})+|\d{1,30})(st|nd|rd|th)?", re.IGNORECASE)
_YEARS = range(1100, 2000)


def _in_words(match: re.Match[str]) -> str:
    number = int(match[1].replace(",", ""))
    year = number in _YEARS and "," not in match[1]
    kind = "ordinal" if match[2] else "year" if year else "cardinal"
    return f" {num2words(number, to=kind)} "


def spell(text: str) -> list[int]:
    """Returns CTC symbols of a text: letters, apostrophe and single spaces; anything else counts as a space.

    Numbers are spelled as they are spoken.

    Returns:
        Indices into LETTERS, none of them 0 (the blank).
    """
    if any(c.isdigit() for c in text):
        text = _WHOLE.sub(_in_words, spoken_text(text))
    kept = "".join(c if c in LETTERS[1:] else " " for c in text.lower())
    return [LETTERS.index(c) for c in " ".join(kept.split())]


def read_letters(symbols: Sequence[int]) -> str:
    """Returns the text of CTC's best symbols: repeats and blanks removed, single spaces between words."""
    kept = [s for place, s in enumerate(symbols) if s and (place == 0 or s != symbols[place - 1])]
    return " ".join("".join(LETTERS[symbol] for symbol in kept).split())


def outputs_needed(symbols: Sequence[int]) -> int:
    """Counts the CTC outputs that a spelling needs: its letters and the blanks between two equal ones."""
    return len(symbols) + sum(a == b for a, b in zip(symbols, symbols[1:], strict=False))
