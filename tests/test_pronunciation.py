"""Texts to phones: words keep their borders and marks, numbers are read out, nothing is lost or refused."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from csm.pronunciation import PHONES, STRESS, pronounced

LINES = [
    "Hello there, how are you?",
    "I've read it, and now you read it.",
    "Mr. Kasperczyk owes me $23!",
    "Uh-huh... well -- the car's on fire.",
]


@pytest.mark.parametrize("text", LINES)
def test_phones_are_those_of_gruuts_own_reading(text) -> None:
    """The indexed lexicon and the shipped one are the same."""
    from gruut import sentences

    words = [word for sentence in sentences(text, lang="en-us") for word in sentence]
    spoken = [word for word in words if word.phonemes and not (word.is_major_break or word.is_minor_break)]
    phones = [phone.replace("ˌ", "") for word in spoken for phone in word.phonemes]
    assert [symbol for symbol in pronounced(text) if symbol in PHONES] == phones
    assert pronounced(text).count(" ") == len(spoken) - 1


def test_a_word_is_its_phones_and_marks_stay_where_they_are() -> None:
    assert pronounced("Ship, yes!") == ("ʃ", STRESS + "ɪ", "p", ",", " ", "j", STRESS + "ɛ", "s", "!")
    assert pronounced("wait... what?!")[-2:] == ("?", "!")
    assert pronounced('"Ship," (yes)!') == pronounced("Ship, yes!")


@pytest.mark.parametrize(
    ("written", "read"),
    [("23", "twenty three"), ("$5", "five dollars"), ("Dr. No", "doctor no"), ("1990", "nineteen ninety")],
)
def test_what_is_not_letters_is_read_out(written, read) -> None:
    assert pronounced(written) == pronounced(read)


def test_the_sentence_decides_where_spelling_does_not() -> None:
    verb, _, noun = " ".join(pronounced("wind the wind")).split("   ")
    assert (STRESS + "aɪ" in verb, STRESS + "ɪ" in noun) == (True, True)


def test_numbers_beyond_words_are_read_digit_by_digit() -> None:
    assert pronounced("1" * 40).count(" ") == 39
    assert pronounced("1e999") == pronounced("1 e 9 9 9")


def test_other_scripts_stand_as_they_are_written() -> None:
    assert pronounced("say 東京") == (*pronounced("say"), " ", "東", "京")
    assert pronounced("...") == (".", ".", ".")
    assert pronounced('"') == ('"',)


def test_no_text_is_refused() -> None:
    draw = random.Random(0)
    alphabets = ["abc XYZ", "0123456789", "$€%&@#*+/-_=", "«»“”\"'()[]<>", "\n\t .,;:!?…", "é東ß", "😀½Ⅳ\x00"]
    for _ in range(150):
        text = "".join(draw.choice(draw.choice(alphabets)) for _ in range(draw.randint(1, 30)))
        symbols = pronounced(text)
        assert not text.strip() or symbols
        assert all(symbol in PHONES or len(symbol) == 1 for symbol in symbols)


def test_threads_may_ask_at_once() -> None:
    alone = [pronounced(line) for line in LINES]
    pronounced.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(pronounced, LINES * 8)) == alone * 8


def test_phones_are_told_apart() -> None:
    assert len(set(PHONES)) == len(PHONES) == 56
