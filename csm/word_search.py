"""Words of CTC's letter probabilities: a beam search with a list of words and the pairs that they occur in.

A letter head spells by ear, and the argmax of each step writes words that no text holds. The search keeps
several spellings (prefix search, Graves et al. 2006) and weighs them by how probable their words are.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from csm.spelling import LETTERS, spell
from csm.system.digests import require_intact
from csm.system.files import write_atomically

#: File of the word pairs in a voice's folder.
WORDS_FILE = "words.json"
NEVER = -math.inf
SPACE = LETTERS.index(" ")
#: Taken from the count of every pair and given to words that did not follow (Ney, Essen & Kneser 1994).
DISCOUNT = 0.75
#: Probability of all words of the lexicon that occur in no text, and of all other spellings.
LEXICON_SHARE, SPELLING_SHARE = 0.03, 0.01
LEXICON_WORDS, SPELLED_LETTERS = 100_000, 20
#: Spellings kept after each step; letters below this log probability are not tried.
BEAM, LEAST_LETTER = 16, math.log(1e-3)
#: Weight of the words' log probability beside the letters', and what each word gains.
WORDS_WEIGHT, WORD_GAIN = 0.15, 1.5


class WordPairs:
    """How often words, and pairs of neighbouring words, occur in texts.

    Args:
        following: Word -> word after it -> count, as letter heads spell them; "" stands before the first word
            and after the last one of a text.
        is_word: Whether a word that occurs in no text is a word; None: no such word is.
    """

    def __init__(
        self, following: Mapping[str, Mapping[str, int]], is_word: Callable[[str], bool] | None = None
    ) -> None:
        self.following, self.is_word = following, is_word
        self.words: Counter[str] = Counter()
        for words in following.values():
            self.words.update(words)
        self._all = self.words.total()
        self._totals = {before: sum(words.values()) for before, words in following.items()}
        self._found: dict[tuple[str, str], float] = {}

    @classmethod
    def of(cls, texts: Iterable[str], is_word: Callable[[str], bool] | None = None) -> WordPairs:
        """Counts the words of texts."""
        following: dict[str, Counter[str]] = {}
        for text in texts:
            row = ["", *"".join(LETTERS[letter] for letter in spell(text)).split(), ""]
            for before, word in zip(row, row[1:], strict=False):
                following.setdefault(before, Counter())[word] += 1
        return cls(following, is_word)

    def save(self, folder: Path) -> None:
        """Writes words.json into a folder, words in the order of the alphabet."""
        ordered = {word: dict(sorted(after.items())) for word, after in sorted(self.following.items())}
        write_atomically(folder / WORDS_FILE, json.dumps(ordered, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, folder: Path, is_word: Callable[[str], bool] | None = None) -> WordPairs | None:
        """Reads words.json of a folder; None where there is none.

        Raises:
            ValueError: The file is damaged.
        """
        path = folder / WORDS_FILE
        if not path.is_file():
            return None
        require_intact(path, "copy the voice's folder again")
        try:
            following = json.loads(path.read_text(encoding="utf-8"))
            return cls(
                {word: {k: int(n) for k, n in after.items()} for word, after in following.items()}, is_word
            )
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"{path} is damaged ({error}): copy the voice's folder again") from error

    def log_probability(self, before: str, word: str) -> float:
        """Returns the log probability that a word follows another one; "" is the start or the end."""
        key = before, word
        if key not in self._found:
            self._found[key] = math.log(self._probability(before, word))
        return self._found[key]

    def _probability(self, before: str, word: str) -> float:
        alone = self._alone(word)
        if before not in self.following:
            return alone
        words, total = self.following[before], self._totals[before]
        return (max(0.0, words.get(word, 0) - DISCOUNT) + DISCOUNT * len(words) * alone) / total

    def _alone(self, word: str) -> float:
        """Probability of a word whatever stands before it."""
        if count := self.words[word]:
            return (1 - LEXICON_SHARE - SPELLING_SHARE) * count / self._all
        if self.is_word is not None and self.is_word(word):
            return LEXICON_SHARE / LEXICON_WORDS
        return SPELLING_SHARE * float(SPELLED_LETTERS) ** -(len(word) + 1)


def search_words(
    scores: Float[Tensor, "N A"],
    pairs: WordPairs,
    *,
    beam: int = BEAM,
    words_weight: float = WORDS_WEIGHT,
    word_gain: float = WORD_GAIN,
) -> str:
    """Returns the text of the best spelling of one turn.

    Args:
        scores: Log probabilities of `csm.spelling.LETTERS` at each step; letter 0 is the blank.
        pairs: Words and their pairs.
        beam: Spellings kept after each step.
        words_weight: Weight of the log probability of the words; 0: letters alone count.
        word_gain: Log probability that each word gains: the weighted words prefer few of them.
    """

    def weight_of(before: str, word: str) -> float:
        return words_weight * pairs.log_probability(before, word) + word_gain

    table = scores.detach().float().cpu().numpy()
    # Spelling -> log probability of its paths that end with a blank, and of those that do not.
    ends: dict[str, tuple[float, float]] = {"": (0.0, NEVER)}
    # Spelling -> weight of its complete words.
    weights = {"": 0.0}
    for step in table:
        letters = [int(letter) for letter in np.flatnonzero(step > LEAST_LETTER) if letter]
        found: dict[str, list[float]] = {}
        for text, (blank, other) in ends.items():
            both = _sum(blank, other)
            last = LETTERS.index(text[-1]) if text else SPACE
            _add(found, text, 0, both + step[0])
            # A repeated letter without a blank between is one letter, and so are spaces.
            _add(found, text, 1, (both if last == SPACE else other) + step[last])
            for letter in letters:
                if letter == SPACE == last:
                    continue
                before = blank if letter == last else both
                if before == NEVER:
                    continue
                longer = text + LETTERS[letter]
                if longer not in weights:
                    weights[longer] = weights[text]
                    if letter == SPACE:
                        weights[longer] += weight_of(*_last_words(text))
                _add(found, longer, 1, before + step[letter])
        ranked = sorted(found, key=lambda text: _sum(*found[text]) + weights[text], reverse=True)[:beam]
        ends = {text: (found[text][0], found[text][1]) for text in ranked}

    def whole(text: str) -> float:
        total = _sum(*ends[text]) + weights[text]
        words = text.split()
        if text and not text.endswith(" "):
            total += weight_of(*_last_words(text))
        return total + words_weight * pairs.log_probability(words[-1] if words else "", "")

    return " ".join(max(ends, key=whole).split())


def _last_words(text: str) -> tuple[str, str]:
    """The last complete or incomplete word, after the one before it."""
    words = text.rsplit(" ", 2)[-2:]
    return (words[0], words[1]) if len(words) == 2 else ("", words[0])


def _add(found: dict[str, list[float]], text: str, place: int, value: float) -> None:
    entry = found.setdefault(text, [NEVER, NEVER])
    entry[place] = _sum(entry[place], float(value))


def _sum(a: float, b: float) -> float:
    """The log of the sum of two probabilities."""
    if a < b:
        a, b = b, a
    return a if b == NEVER else a + math.log1p(math.exp(b - a))
