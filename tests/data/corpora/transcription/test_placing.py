"""A user's text takes its times from recognised words, whatever the recogniser got wrong."""

import random

import pytest

from csm.data.corpora.transcription.placing import place
from csm.data.word_times import Word

VOCABULARY = [f"word{number}" for number in range(40)]


@pytest.mark.parametrize("seed", range(20))
def test_each_word_is_placed_once_in_order_near_where_it_is_said(seed: int) -> None:
    draw = random.Random(seed)
    text = [draw.choice(VOCABULARY) for _ in range(60)]
    said = [Word(word, 0.5 * i, 0.5 * i + 0.3) for i, word in enumerate(text)]
    recognised = []
    for word in said:
        kind = draw.random()
        if kind < 0.15:
            recognised.append(word._replace(text="other"))
        elif kind > 0.1 + 0.15:  # a tenth is missing
            recognised.append(word)
    placed = place([f"{word.capitalize()}," for word in text], recognised)
    assert [word.text for word in placed] == [f"{word.capitalize()}," for word in text]
    assert all(word.start <= word.end for word in placed)
    assert all(first.start <= second.start for first, second in zip(placed, placed[1:], strict=False))
    errors = sorted(abs(mine.start - true.start) for mine, true in zip(placed, said, strict=True))
    assert errors[30] == 0 and errors[-1] < 4


def test_another_text_is_refused_with_the_share_that_is_recognised() -> None:
    recognised = [Word("hello", 0, 1), Word("there", 1, 2)]
    with pytest.raises(ValueError, match="0 of 3 words of the text are recognised"):
        place(["something", "else", "entirely"], recognised)
    assert place(["Hello"], recognised) == [Word("Hello", 0, 1)]
