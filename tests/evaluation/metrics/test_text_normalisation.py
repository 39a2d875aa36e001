"""The rule that makes two texts comparable."""

import pytest

from csm.evaluation.metrics.text_normalisation import normalise_text, number_in_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, Bud!", "hello bud"),
        ("I\u2019ve got \u201choly\u201d spirits", "i've got holy spirits"),
        ("a well-known trap...", "a well known trap"),
        ("[sighs] OK, Mr. Smith (quietly)", "okay mister smith"),
        ("In 1930, 2,500 'monkeys'", "in one thousand nine hundred thirty two thousand five hundred monkeys"),
        ("...", ""),
    ],
)
def test_texts_become_plain_words(text, words):
    assert normalise_text(text) == words
    assert normalise_text(words) == words


def test_numbers_are_written_out():
    assert number_in_words(0) == "zero"
    assert number_in_words(21) == "twenty one"
    assert number_in_words(999_999).startswith("nine hundred ninety nine thousand nine hundred")
