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
from csm.text_normalisation import spoken_text, unaccented
from csm.text_numbers import digits, number

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
# Between a number and a sign that gruut does not part from it, and would be silent with: "18|", "(5]".
BESIDE_DIGITS = re.compile(r"(?<=[0-9])(?=[^\w\s](?![0-9]))|(?<=[^\w\s])(?<![0-9][^\w\s])(?=[0-9])")
# Two capitals or more: a word said with emphasis where the lexicon holds it, else letters.
CAPITALS = re.compile(r"(?<![\w.&'-])[A-Z]{2,}(?![\w&]|\.\w)")
LETTERS = frozenset("US UK TV AI IT PC ID IP AM PM CD DVD".split())
# Several of what letters stand for, or what is its own: "DVDs", "the BBC's".
MANY_LETTERS = re.compile(r"(?<![\w.&'-])([A-Z]{2,})['\u2019]?s(?![\w'\u2019])")
# The letter A, which would be read as the article; the lexicon's "ae" sounds like its name.
LETTER_A = re.compile(
    r"\bA(?= (?:[B-Z] )?and [A-Z]\b)|\bA(?= plus [A-Z]\b)|(?<=\b[A-Z] and )A\b|(?<=\b[A-Z] plus )A\b"
    r"|\bA(?= [B-HJ-Z](?: [A-Z]\b|'s\b|[.,;:!?)]|\s*$))|(?<=\b[B-HJ-Z] )A\b|(?<=[a-z] )A(?=[.,;:!?)]|\s*$)"
)
# Before or after digits: "A4", "SW1A".
NUMBERED_A = re.compile(r"(?<![\w.@/:-])A(?=-?[0-9])|(?<=[0-9])A(?!\w)")
# gruut takes the full stop after a letter for one of its abbreviation.
LAST_LETTER = re.compile(r"(?<![\w.])[A-Za-z]\.[\"'\u201d\u2019)\]]*\s*$")
WORDS = re.compile(r"[A-Za-z]+(?:['\u2019][A-Za-z]+)*")
# Before the vowel that an emphasised word stresses.
EMPHASIS = 2 * STRESS
EMPHASISED = tuple(EMPHASIS + vowel for vowel in VOWELS)
# Cached texts: a dataset needs the phones of the same text in every epoch.
KEPT_TEXTS = 100_000
# Words whose accents change the sound of the word without them, or which the lexicon has in no form.
ACCENTED = {
    "brûlée": "b ɹ u l ˈeɪ",
    "crème": "k ɹ ˈɛ m",
    "exposé": "ˌɛ k s p oʊ z ˈeɪ",
    "exposés": "ˌɛ k s p oʊ z ˈeɪ z",
    "fiancée": "f i ˈɑ n s ˌeɪ",
    "fiancées": "f i ˈɑ n s ˌeɪ z",
    "flambé": "f l ɑ m b ˈeɪ",
    "lamé": "l ɑ m ˈeɪ",
    "mañana": "m ə n j ˈɑ n ə",
    "maté": "m ˈɑ t eɪ",
    "née": "n ˈeɪ",
    "olé": "oʊ l ˈeɪ",
    "pâté": "p ɑ t ˈeɪ",
    "piñata": "p i n j ˈɑ t ə",
    "résumé": "ɹ ˈɛ z ə m ˌeɪ",
    "résumés": "ɹ ˈɛ z ə m ˌeɪ z",
    "rosé": "ɹ oʊ z ˈeɪ",
}
# Digits of a run that is read as one number where no rule reads the token it stands in.
LONGEST_COUNTED = 6
# gruut's processor caches its lookups in dictionaries without a lock.
_ONE_AT_A_TIME = threading.Lock()


@lru_cache(maxsize=KEPT_TEXTS)
def pronounced(text: str, emphasis: bool = False) -> tuple[str, ...]:
    """Converts a text to phones of `PHONES`, a space between words, and punctuation marks.

    With `emphasis` the vowel that a word in capitals stresses is one of `EMPHASISED`; a word without stress
    has it on its first vowel. The number of symbols is the same.

    Numbers, abbreviations and addresses are expanded to words (`spoken_text`); capitals are not spelled
    where they are a word of the lexicon; accents are removed from words that the lexicon lacks; secondary
    stress is dropped; quotation marks and brackets are removed. A word in another script stays in its
    characters. The first call loads the lexicon, which
    takes half a second.

    Raises:
        ValueError: The package gruut is missing.
    """
    symbols: list[str] = []
    spoken = unaccented(spoken_text(NUMBERED_A.sub("AE", text)), known=is_word)
    text = LETTER_A.sub("ae", without_emphasis(spoken))
    words = _read(text)
    for apart in (lambda token: BESIDE_DIGITS.sub(" ", token), _numbers_apart):
        # A number becomes words; a word that still has digits is guessed without them: "9.y", "1:fifty".
        if unread := [word.text for word in words if re.search("[0-9]", word.text)]:
            for token in unread:
                text = text.replace(token, apart(token))
            words = _read(text)
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
    if LAST_LETTER.search(text) and symbols[-1:] != ["."]:
        symbols.append(".")
    return tuple(symbols or text.strip() or ".")  # "." is a pause, of a text of silent signs


def _numbers_apart(token: str) -> str:
    """Returns the words of each run of digits of a token, its signs left out: "12:34:56:78", "2.1-rc"."""
    parts = re.findall("[0-9]+|[^\\W0-9_]+", token)
    return f" {' '.join(_said(part) if part.isdigit() else part for part in parts)} "


def _said(run: str) -> str:
    return number(run) if len(run) <= LONGEST_COUNTED and not run.startswith("0") else digits(run)


def silent_letters(text: str) -> set[str]:
    """Returns the letters and digits of a text that no phone stands for: those of other scripts.

    Raises:
        ValueError: The package gruut is missing.
    """
    if text.isascii():
        return set()
    words = re.findall(r"\w+", unaccented(spoken_text(text), known=is_word))
    return {c for word in words if not is_word(word.lower()) for c in word if c.isalnum() and not c.isascii()}


def _as_in_lexicon(match: re.Match[str]) -> str:
    """Returns a word in capitals as the lexicon holds it, an acronym unchanged."""
    word = match[0]
    return word.lower() if word not in LETTERS and is_word(word.lower()) else word


def can_emphasise(word: str) -> bool:
    """Returns whether a word in capitals is read with emphasis, and not letter by letter."""
    return len(word) > 1 and word.upper() not in (*LETTERS, "AE") and is_word(word.lower())


def without_emphasis(text: str) -> str:
    """Returns the text with words in capitals in lower case, where the lexicon holds them."""
    return CAPITALS.sub(_as_in_lexicon, MANY_LETTERS.sub(_letters_of_many, text))


def _letters_of_many(match: re.Match[str]) -> str:
    """Returns "D V D's" for "DVDs"; a word of the lexicon stays a word."""
    word = match[1]
    if word not in LETTERS and is_word(word.lower()):
        return word.lower() + match[0][len(word) :]
    return " ".join(word) + "'s"


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


def _read(text: str) -> list[Word]:
    try:
        return _words(text)
    except ArithmeticError:  # a number of 30 digits or more, which gruut cannot expand
        return _words(BETWEEN_DIGITS.sub(" ", text))


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
    rows = [(word, 0, phonemes, "") for word, phonemes in ACCENTED.items()]
    lexicon.executemany(
        "INSERT INTO word_phonemes (word, pron_order, phonemes, role) VALUES (?, ?, ?, ?)", rows
    )
    lexicon.execute("CREATE INDEX word ON word_phonemes (word)")
    # The same spellings in the same order as gruut's own lookup.
    spellings = [str.lower, remove_non_word_chars, lambda word: remove_non_word_chars(word.lower())]
    lookup = SqlitePhonemizer(lexicon, word_transform_funcs=spellings)
    return TextProcessor(settings={LANGUAGE: get_settings(LANGUAGE, lookup_phonemes=lookup)})


@cache
def _lexicon() -> frozenset[str]:
    """All words of gruut's lexicon and of `ACCENTED`, in lower case."""
    import gruut_lang_en

    path = Path(gruut_lang_en.__file__).parent / "lexicon.db"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as lexicon:
        words = frozenset(word.lower() for (word,) in lexicon.execute("SELECT word FROM word_phonemes"))
    return words.union(ACCENTED)


def is_word(word: str) -> bool:
    """Whether the lexicon holds a lower-case word, contractions included.

    Raises:
        ValueError: The package gruut is missing.
    """
    return word in _lexicon()
