"""Written dialogues: numbers in words, names that return, two speakers in turn."""

import random
import re

import pytest

from csm.data.corpora.synthetic_dialogues.templates import KINDS, NAMES, number_words, template_dialogue


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "zero"),
        (19, "nineteen"),
        (40, "forty"),
        (85, "eighty-five"),
        (100, "one hundred"),
        (342, "three hundred and forty-two"),
        (7_000, "seven thousand"),
        (99_999, "ninety-nine thousand nine hundred and ninety-nine"),
    ],
)
def test_numbers_are_written_in_words(number, words):
    assert number_words(number) == words


def test_every_kind_gives_sentences_without_digits_or_gaps():
    for kind in KINDS:
        for seed in range(20):
            for text in kind(random.Random(seed)):
                assert re.fullmatch(r"[A-Za-z ,.:!?'\-]+", text), text
                assert text[-1] in ".!?" and text[0].isupper() and "  " not in text


def test_the_same_seed_gives_the_same_dialogue():
    assert template_dialogue(random.Random(3)) == template_dialogue(random.Random(3))


def test_speakers_alternate():
    for seed in range(30):
        assert [who for who, _ in template_dialogue(random.Random(seed))][:4] == [0, 1, 0, 1]


def test_names_return_in_later_turns():
    repeated = 0
    for seed in range(100):
        texts = [text for _, text in template_dialogue(random.Random(seed))]
        repeated += any(sum(name in text for text in texts) > 1 for name in NAMES)
    assert repeated > 30
