"""The beam search: it sums over paths where nothing is cut, and prefers words where letters are unsure."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch

from csm.spelling import LETTERS, read_letters
from csm.word_search import WordPairs, search_words

TEXTS = ["the field is green", "what did you say", "what did you see", "you say the word"]


def scores_of(text: str, sure: float, others: dict[int, str] | None = None) -> torch.Tensor:
    """Log probabilities that spell a text, a blank after each letter; `others` share steps evenly."""
    rows = []
    for place, letter in enumerate(text):
        row = torch.full((len(LETTERS),), (1 - sure) / (len(LETTERS) - 1))
        row[LETTERS.index(letter)] = sure
        if others and place in others:
            half = row[LETTERS.index(letter)] / 2
            row[LETTERS.index(letter)] = 0.9 * half
            row[LETTERS.index(others[place])] += 1.1 * half
        blank = torch.full_like(row, 0.01 / (len(LETTERS) - 1))
        blank[0] = 0.99
        rows += [row, blank]
    return torch.stack(rows).log()


def test_without_words_it_sums_over_all_paths() -> None:
    """Against the enumeration of every path of four steps over four letters."""
    random = torch.Generator().manual_seed(3)
    letters = [0, *(LETTERS.index(letter) for letter in "ab ")]
    for _ in range(20):
        scores = torch.full((4, len(LETTERS)), -1e9)
        scores[:, letters] = torch.randn(4, 4, generator=random).log_softmax(-1)
        totals: dict[str, float] = {}
        for path in itertools.product(letters, repeat=4):
            text = read_letters(path)
            value = math.exp(sum(float(scores[step, letter]) for step, letter in enumerate(path)))
            totals[text] = totals.get(text, 0.0) + value
        best = max(totals, key=lambda text: totals[text])
        found = search_words(scores, WordPairs({}), beam=1000, words_weight=0.0, word_gain=0.0)
        # Spellings "a" and "a " are one text and two spellings.
        assert found == best or totals[found] > 0.5 * totals[best]


@pytest.mark.parametrize("text", ["what did you say", "the word", "a feeld of xyzzy", ""])
def test_sure_letters_are_kept_whatever_the_words(text: str) -> None:
    scores = (
        scores_of(text, 0.999)
        if text
        else torch.full((5, len(LETTERS)), -9.0).index_fill(1, torch.tensor([0]), -0.01)
    )
    assert search_words(scores, WordPairs.of(TEXTS)) == text


def test_unsure_letters_become_words_and_words_those_that_follow_others() -> None:
    pairs = WordPairs.of(TEXTS)
    spelled = scores_of("the field", 0.98, {5: "e"})
    assert read_letters(spelled.argmax(-1).tolist()) == "the feeld"
    assert search_words(spelled, pairs) == "the field"
    # "say" and "see" are as frequent; "you" stands before either, "the" before neither.
    unsure = scores_of("what did you say", 0.98, {0: "v"})
    assert search_words(unsure, pairs) == "what did you say"


def test_probabilities_of_all_words_that_follow_sum_to_one_at_most() -> None:
    pairs = WordPairs.of(TEXTS, is_word=lambda word: word == "zebra")
    for before in ("", "you", "never"):
        total = sum(math.exp(pairs.log_probability(before, word)) for word in pairs.words)
        assert 0.9 < total <= 1
    assert pairs.log_probability("you", "say") > pairs.log_probability("you", "field")
    assert pairs.log_probability("you", "zebra") > pairs.log_probability("you", "zebro")


def test_a_word_is_counted_as_a_letter_head_spells_it() -> None:
    pairs = WordPairs.of(["I'm 20, O.K.?"])
    assert set(pairs.words) == {"i'm", "twenty", "o", "k", ""}


def test_a_saved_list_gives_the_same_probabilities_and_a_damaged_one_is_refused(tmp_path: Path) -> None:
    pairs = WordPairs.of([*TEXTS, "Zoë's café"])
    pairs.save(tmp_path)
    read = WordPairs.read(tmp_path)
    assert read is not None and read.words == pairs.words
    for before in ("", "you", "never"):
        for word in (*pairs.words, "unseen"):
            assert read.log_probability(before, word) == pairs.log_probability(before, word)
    for damage in ('{"a": 3}', "[1]", '{"a": {"b": "x"}}', "{"):
        (tmp_path / "words.json").write_text(damage)
        with pytest.raises(ValueError, match="damaged"):
            WordPairs.read(tmp_path)
    assert WordPairs.read(tmp_path / "elsewhere") is None
