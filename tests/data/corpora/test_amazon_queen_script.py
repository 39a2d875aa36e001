"""Texts of the game's script."""

import pytest

from csm.data.corpora.amazon_queen_script import clean_text, read_lines


def test_every_cleaned_text_has_words_and_no_marks() -> None:
    for line in read_lines():
        text = clean_text(line.text)
        assert text and any(letter.isalnum() for letter in text), line
        assert not set(text) & set("^_@<>#$&"), line
        assert clean_text(text) == text


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("@@ She's beautiful! @@", "She's beautiful!"),
        ("the Super Soldier Treatment^_.", "the Super Soldier Treatment."),
        ("<CRUNCH>", "(crunch)"),
        ("(sigh)", "(sigh)"),
        ("&#($!!, he got away!", "he got away!"),
        ("What?!!!! (Really)", "What?!!!! (really)"),
        ('I guess that\'s a "no".', 'I guess that\'s a "no".'),
    ],
)
def test_marks_are_removed_from_texts(written: str, spoken: str) -> None:
    assert clean_text(written) == spoken
