"""A user's text takes its times from recognised words, whatever the recogniser got wrong."""

import random

import pytest

from csm.data.corpora.transcription.placing import place, place_in_turns
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


@pytest.mark.parametrize("seed", range(20))
def test_words_that_are_not_recognised_stay_in_their_turn_or_the_next_one(seed: int) -> None:
    """Turns of one to nine words with pauses of up to 3 s between them, of whose words a third is missing."""
    draw = random.Random(seed)
    turns, said, start = [], [], 0.0
    for number in range(12):
        spoken = [
            Word(f"w{number}_{i}", start + 0.5 * i, start + 0.5 * i + 0.5) for i in range(draw.randint(1, 9))
        ]
        turns.append((start, spoken[-1].end))
        said.append(spoken)
        start = spoken[-1].end + draw.uniform(0, 3)
    recognised = [[word for word in spoken if draw.random() < 0.67] for spoken in said]
    placed = place_in_turns([word.text for spoken in said for word in spoken], turns, recognised)
    assert [word.text for spoken in placed for word in spoken] == [w.text for spoken in said for w in spoken]
    known = {word for spoken in recognised for word in spoken}
    for found, (first, last) in zip(placed, turns, strict=True):
        assert all(first <= word.start <= word.end <= last for word in found)
    for spoken, found in zip(recognised, placed, strict=True):
        assert all(any(word.text == other.text for other in found) for word in spoken)
    inside = {word.text for word in known}
    unknown = [(w.text, n) for n, spoken in enumerate(said) for w in spoken if w.text not in inside]
    where = {word.text: n for n, spoken in enumerate(placed) for word in spoken}
    wrong = [text for text, number in unknown if where[text] != number]
    assert len(wrong) <= 0.2 * len(unknown) + 2, wrong


def test_words_of_turns_that_overlap_stay_with_their_turn() -> None:
    turns = [(0.0, 4.0), (2.0, 6.0)]
    recognised = [
        [Word("one", 0.0, 0.5), Word("three", 3.5, 4.0)],
        [Word("four", 2.0, 2.5), Word("six", 5.5, 6.0)],
    ]
    first, second = place_in_turns(["one", "two", "three", "four", "five", "six"], turns, recognised)
    assert [word.text for word in first] == ["one", "two", "three"]
    assert [word.text for word in second] == ["four", "five", "six"]
    assert second[0] == Word("four", 2.0, 2.5)
    assert first[1][1:] == pytest.approx((0.5, 3.5), abs=1e-4)
