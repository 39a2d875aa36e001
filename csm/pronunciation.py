"""Grapheme-to-phoneme conversion for English: gruut's lexicon, and its rules for unknown words."""

from __future__ import annotations

import re
import sqlite3
import threading
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from csm.system.extras import missing_package
from csm.text_normalisation import spoken_text

if TYPE_CHECKING:
    from gruut import TextProcessor
    from gruut.const import Word

CONSONANTS = tuple("p b t d k ɡ m n ŋ f v θ ð s z ʃ ʒ h t͡ʃ d͡ʒ l ɹ j w".split())
VOWELS = tuple("i ɪ u ʊ eɪ ɛ æ ʌ ə oʊ ɔ ɑ aɪ aʊ ɔɪ ɚ".split())
STRESS, WEAK_STRESS = "ˈ", "ˌ"
# The phones of American English (Handbook of the International Phonetic Association, 1999). A vowel with
# primary stress is a separate phone.
PHONES = (*CONSONANTS, *VOWELS, *(STRESS + vowel for vowel in VOWELS))
LANGUAGE = "en_US"
BETWEEN_DIGITS = re.compile(r"(?<=\w)(?=\d)|(?<=\d)(?=\w)")
# Two capitals or more: a word said with emphasis where the lexicon holds it, else letters.
CAPITALS = re.compile(r"(?<![\w.&'-])[A-Z]{2,}(?![\w&]|\.\w)")
LETTERS = frozenset("US UK TV AI IT PC ID AM PM CD DVD".split())
WORDS = re.compile(r"[A-Za-z]+(?:['\u2019][A-Za-z]+)*")
# Before the vowel that an emphasised word stresses.
EMPHASIS = 2 * STRESS
EMPHASISED = tuple(EMPHASIS + vowel for vowel in VOWELS)
# Cached texts: a dataset needs the phones of the same text in every epoch.
KEPT_TEXTS = 100_000
# gruut's processor caches its lookups in dictionaries without a lock.
_ONE_AT_A_TIME = threading.Lock()


@lru_cache(maxsize=KEPT_TEXTS)
def pronounced(text: str, emphasis: bool = False) -> tuple[str, ...]:
    """Converts a text to phones of `PHONES`, a space between words, and punctuation marks.

    With `emphasis` the vowel that a word in capitals stresses is one of `EMPHASISED`; a word without stress
    has it on its first vowel. The number of symbols is the same.

    Numbers, abbreviations and addresses are expanded to words (`spoken_text`); capitals are not spelled
    where they are a word of the lexicon; secondary stress is dropped; quotation marks and brackets
    are removed. A word in another script stays in its characters. The first call loads the lexicon, which
    takes half a second.

    Raises:
        ValueError: The package gruut is missing.
    """
    symbols: list[str] = []
    spoken = spoken_text(text)
    text = without_emphasis(spoken)
    try:
        words = _words(text)
    except ArithmeticError:  # a number of 30 digits or more, which gruut cannot expand
        words = _words(BETWEEN_DIGITS.sub(" ", text))
    marks = _emphasised_words(spoken, [word.text for word in words]) if emphasis else [False] * len(words)
    for word, mark in zip(words, marks, strict=True):
        if word.is_major_break or word.is_minor_break:
            symbols += word.text.strip()
            continue
        phones = [phone.replace(WEAK_STRESS, "") for phone in word.phonemes or ()]
        if not phones or not set(phones) <= set(PHONES):
            phones = list(word.text) if any(map(str.isalnum, word.text)) else []
        elif mark:
            phones = _with_emphasis(phones)
        if phones:
            symbols += [" ", *phones] if symbols else phones
    return tuple(symbols or text.strip() or ".")  # "." is a pause, of a text of silent signs


def _as_in_lexicon(match: re.Match[str]) -> str:
    """Returns a word in capitals as the lexicon holds it, an acronym unchanged."""
    word = match[0]
    return word.lower() if word not in LETTERS and is_word(word.lower()) else word


def can_emphasise(word: str) -> bool:
    """Returns whether a word in capitals is read with emphasis, and not letter by letter."""
    return len(word) > 1 and word.upper() not in LETTERS and is_word(word.lower())


def without_emphasis(text: str) -> str:
    """Returns the text with words in capitals in lower case, where the lexicon holds them."""
    return CAPITALS.sub(_as_in_lexicon, text)


def _emphasised_words(text: str, words: Sequence[str]) -> list[bool]:
    """Returns which words of a pronounced text are in capitals; none where all of several are.

    The words are those of the text but for numbers and signs, which became words.
    """
    found = [match[0].replace("\u2019", "'") for match in WORDS.finditer(text)]
    marks = [word.isupper() and can_emphasise(word) for word in found]
    if len(found) > 1 and all(word.isupper() for word in found):
        marks = [False] * len(found)
    emphasised = [False] * len(words)
    if any(marks):
        written, said = [word.lower() for word in found], [word.lower() for word in words]
        for block in SequenceMatcher(None, written, said, autojunk=False).get_matching_blocks():
            emphasised[block.b : block.b + block.size] = marks[block.a : block.a + block.size]
    return emphasised


def _with_emphasis(phones: list[str]) -> list[str]:
    """Returns the phones of a word with emphasis on what it stresses."""
    stressed = [phone for phone in phones if phone.startswith(STRESS)]
    chosen = set(stressed or [phone for phone in phones if phone in VOWELS][:1])
    return [EMPHASIS + phone.removeprefix(STRESS) if phone in chosen else phone for phone in phones]


def _words(text: str) -> list[Word]:
    with _ONE_AT_A_TIME:
        reader = _reader()
        graph, root = reader(text, lang=LANGUAGE)
        return [word for sentence in reader.sentences(graph, root) for word in sentence]


@cache
def _reader() -> TextProcessor:
    """Returns gruut's processor with an index on its lexicon, which SQLite else scans for each word."""
    try:
        import gruut_lang_en
        from gruut import TextProcessor
        from gruut.lang import get_settings
        from gruut.phonemize import SqlitePhonemizer
        from gruut.utils import remove_non_word_chars
    except ImportError as error:
        raise ValueError(
            f"{missing_package('gruut', 'speaking from phones')}, or train with --set model.text=bytes"
        ) from error
    lexicon = sqlite3.connect(":memory:", check_same_thread=False)
    with sqlite3.connect(gruut_lang_en.get_lang_dir() / "lexicon.db") as shipped:
        shipped.backup(lexicon)
    shipped.close()
    lexicon.execute("CREATE INDEX word ON word_phonemes (word)")
    # The same spellings in the same order as gruut's own lookup.
    spellings = [str.lower, remove_non_word_chars, lambda word: remove_non_word_chars(word.lower())]
    lookup = SqlitePhonemizer(lexicon, word_transform_funcs=spellings)
    return TextProcessor(settings={LANGUAGE: get_settings(LANGUAGE, lookup_phonemes=lookup)})


@cache
def _lexicon() -> frozenset[str]:
    """All words of gruut's lexicon, in lower case."""
    import gruut_lang_en

    path = Path(gruut_lang_en.__file__).parent / "lexicon.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as lexicon:
        return frozenset(word.lower() for (word,) in lexicon.execute("SELECT word FROM word_phonemes"))


def is_word(word: str) -> bool:
    """Whether the lexicon holds a lower-case word, contractions included.

    Raises:
        ValueError: The package gruut is missing.
    """
    return word in _lexicon()
