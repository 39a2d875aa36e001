"""The table of words: the house's phones, sentences of both readings, spellings that sound different."""

import pytest

from csm.evaluation.metrics.pronunciation import words_of
from csm.evaluation.subjects.ambiguous_words import HOMOGRAPHS, MARK, PAIRS, VARIANTS
from csm.pronunciation import CONSONANTS, VOWELS

SESAME = "lead bass tear wound row", "aunt data envelope mobile route vase either adult often caramel"


def test_the_words_are_sesames():
    published = tuple(word.word for word in HOMOGRAPHS if word.published)
    assert (published, tuple(word.word for word in VARIANTS)) == tuple(tuple(s.split()) for s in SESAME)


@pytest.mark.parametrize("word", (*HOMOGRAPHS, *VARIANTS), ids=lambda word: word.word)
def test_readings_differ_and_are_phones(word):
    first, second = (reading.phones for reading in word.readings)
    assert first != second and {*first, *second} <= {*CONSONANTS, *VOWELS}
    sentences = PAIRS.get(word.word) or (*word.readings[0].sentences, *word.readings[1].sentences)
    assert len(sentences) == (2 if word.word in PAIRS else 4) and all(s.count(MARK) == 1 for s in sentences)
    # The lexicon holds one of the readings: the phones are not of another word.
    (said,) = words_of(word.word)
    reduced = str.maketrans({"ɔ": "ɑ"})
    assert "".join(said).translate(reduced) in {"".join(r).translate(reduced) for r in (first, second)}


@pytest.mark.parametrize("word", VARIANTS, ids=lambda word: word.word)
def test_the_two_spellings_sound_different(word):
    first, second = (words_of(reading.spelling) for reading in word.readings)
    assert first != second
