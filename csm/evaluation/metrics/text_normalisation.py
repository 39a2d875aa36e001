"""Text as a word error rate compares it: one rule for the reference and for the transcript."""

from __future__ import annotations

import re
import unicodedata

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen "
    "sixteen seventeen eighteen nineteen"
).split()
_TENS = ("", "", *"twenty thirty forty fifty sixty seventy eighty ninety".split())
_SPELLINGS = {"ok": "okay", "mr": "mister", "mrs": "missus", "dr": "doctor", "alright": "all right"}
_ASIDES = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")
_NOT_A_WORD = re.compile(r"[^\w']+|_")
_GROUPED_DIGITS = re.compile(r"(?<=\d),(?=\d{3}\b)")


def number_in_words(number: int) -> str:
    """Spells a number from 0 to 999999 in English words, without "and": "twenty one"."""
    if number < 20:
        return _ONES[number]
    if number < 100:
        rest = number % 10
        return _TENS[number // 10] + (f" {_ONES[rest]}" if rest else "")
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    head, rest = divmod(number, size)
    return f"{number_in_words(head)} {name}" + (f" {number_in_words(rest)}" if rest else "")


def normalise_text(text: str) -> str:
    """Converts a text to lower-case words separated by single spaces.

    Rules, in order: Unicode NFKC; lower case; asides in brackets removed; typographic apostrophes
    made plain; everything that is neither letter, digit nor apostrophe becomes a space (hyphens
    too); quotation marks around words removed; whole numbers below a million written out; "ok",
    "alright", "mr", "mrs", "dr" in one spelling. Contractions stay as they are.
    """
    text = unicodedata.normalize("NFKC", text).lower()
    text = _ASIDES.sub(" ", text).replace("’", "'").replace("‘", "'").replace("`", "'")
    text = _GROUPED_DIGITS.sub("", text)
    words = []
    for word in _NOT_A_WORD.sub(" ", text).split():
        word = word.strip("'")
        if word.isascii() and word.isdigit() and len(word) <= 6:
            word = number_in_words(int(word))
        word = _SPELLINGS.get(word, word)
        if word:
            words.append(word)
    return " ".join(words)
