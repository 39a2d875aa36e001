"""Texts to phones: word boundaries and punctuation stay, numbers are expanded, every text is accepted."""

import gzip
import hashlib
import importlib.resources
import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from csm.pronunciation import (
    EMPHASIS,
    EMPHASISED,
    PHONES,
    STRESS,
    pronounced,
    silent_letters,
    without_emphasis,
)

LINES = [
    "Hello there, how are you?",
    "I've read it, and now you read it.",
    "Mr. Kasperczyk owes me $23!",
    "Uh-huh... well -- the car's on fire.",
]


@pytest.mark.parametrize("text", LINES)
def test_phones_are_those_of_gruuts_own_reading(text) -> None:
    """The index changes no lookup."""
    from gruut import sentences

    words = [word for sentence in sentences(text, lang="en-us") for word in sentence]
    spoken = [word for word in words if word.phonemes and not (word.is_major_break or word.is_minor_break)]
    phones = [phone.replace("ˌ", "") for word in spoken for phone in word.phonemes]
    assert [symbol for symbol in pronounced(text) if symbol in PHONES] == phones
    assert pronounced(text).count(" ") == len(spoken) - 1


def test_a_word_becomes_its_phones_and_punctuation_stays() -> None:
    assert pronounced("Ship, yes!") == ("ʃ", STRESS + "ɪ", "p", ",", " ", "j", STRESS + "ɛ", "s", "!")
    assert pronounced("wait... what?!")[-2:] == ("?", "!")
    assert pronounced('"Ship," (yes)!') == pronounced("Ship, yes!")


@pytest.mark.parametrize(
    ("written", "read"),
    [("23", "twenty three"), ("$5", "five dollars"), ("Dr. No", "doctor no"), ("1990", "nineteen ninety")],
)
def test_numbers_and_abbreviations_are_expanded(written, read) -> None:
    assert pronounced(written) == pronounced(read)


def test_the_part_of_speech_selects_among_homographs() -> None:
    verb, _, noun = " ".join(pronounced("wind the wind")).split("   ")
    assert (STRESS + "aɪ" in verb, STRESS + "ɪ" in noun) == (True, True)


def test_numbers_too_long_for_words_are_read_digit_by_digit() -> None:
    assert pronounced("1" * 40).count(" ") == 39
    assert pronounced("1e999") == pronounced("1 e 999")


def test_words_in_other_scripts_stay_in_their_characters() -> None:
    assert pronounced("say 東京") == (*pronounced("say"), " ", "東", "京")
    assert pronounced("...") == (".", ".", ".")
    assert pronounced('"') == ('"',)


def test_every_text_is_accepted() -> None:
    draw = random.Random(0)
    alphabets = ["abc XYZ", "0123456789", "$€%&@#*+/-_=", "«»“”\"'()[]<>", "\n\t .,;:!?…", "é東ß", "😀½Ⅳ\x00"]
    for _ in range(150):
        text = "".join(draw.choice(draw.choice(alphabets)) for _ in range(draw.randint(1, 30)))
        symbols = pronounced(text)
        assert not text.strip() or symbols
        assert all(symbol in PHONES or len(symbol) == 1 for symbol in symbols)


def test_threads_may_call_it_at_the_same_time() -> None:
    alone = [pronounced(line) for line in LINES]
    pronounced.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(pronounced, LINES * 8)) == alone * 8


def test_a_word_in_capitals_is_emphasised_on_what_it_stresses() -> None:
    plain, marked = "I said tomorrow, not the day before.", "I said TOMORROW, NOT the day before."
    assert pronounced(marked) == pronounced(plain) == pronounced(plain, emphasis=True)
    found = pronounced(marked, emphasis=True)
    changed = {(a, b) for a, b in zip(pronounced(plain), found, strict=True) if a != b}
    assert changed == {("ˈɑ", EMPHASIS + "ɑ")} and [f for f in found if f in EMPHASISED] == 2 * [
        EMPHASIS + "ɑ"
    ]
    # A word without stress has it on its first vowel; initials are letters, as before.
    assert EMPHASIS + "ə" in pronounced("I said THE day.", emphasis=True)
    assert pronounced("The US is big.", emphasis=True) == pronounced("The US is big.")
    # Words that come of numbers and signs do not shift the marks.
    for text in ("At 10 p.m. I MUST go.", "It costs $5, and you MUST pay.", "We've 3 dogs & MUST go."):
        assert pronounced(text, emphasis=True) != pronounced(text)
        assert len(pronounced(text, emphasis=True)) == len(pronounced(text.replace("MUST", "must")))


@pytest.mark.parametrize(
    ("marked", "word"),
    [
        ("The CIA said a MAN is a fool.", "MAN"),
        ("I have 100 and THEN a thousand.", "THEN"),
        ("I have 100 and then a HUNDRED.", "HUNDRED"),
        ("I DON\u2019T know.", "DON\u2019T"),
        ("She doesn\u2019t, can\u2019t, won\u2019t LEAVE.", "LEAVE"),
        ("No no no NO no.", "NO"),
    ],
)
def test_emphasis_falls_on_the_word_in_capitals_alone(marked: str, word: str) -> None:
    found, plain = pronounced(marked, emphasis=True), pronounced(marked)
    places = [place for place, (a, b) in enumerate(zip(found, plain, strict=True)) if a != b]
    assert len(places) == 1 and found[places[0]] in EMPHASISED
    # As many words before it as in the text, in which numbers are words.
    before = pronounced(marked[: marked.index(word)])
    assert found[: places[0]].count(" ") == before.count(" ") + 1


def test_texts_in_capitals_as_a_whole_have_no_emphasis() -> None:
    assert pronounced("ROME AND PARIS", emphasis=True) == pronounced("rome and paris")
    assert without_emphasis("Rome AND Paris, the CIA") == "Rome and Paris, the CIA"


PACKAGED_PHONES = "ecf5ec046d2b5705"


def test_packaged_texts_keep_the_phones_that_the_packaged_voices_were_trained_on() -> None:
    files = importlib.resources.files("csm")
    texts = (files / "evaluation" / "everyday_lines.txt").read_text(encoding="utf-8").splitlines()
    packed = gzip.decompress((files / "data" / "excerpt" / "lines.tsv.gz").read_bytes()).decode()
    texts += [line.split("\t")[-1] for line in packed.splitlines()[1::10]]
    phones = "\n".join(" ".join(pronounced(text)) for text in texts if text.strip())
    assert hashlib.sha256(phones.encode()).hexdigest()[:16] == PACKAGED_PHONES


@pytest.mark.parametrize(
    ("text", "phones"),
    [
        ("caf\u00e9", "k \u00e6 f \u02c8e\u026a"),
        ("r\u00e9sum\u00e9", "\u0279 \u02c8\u025b z \u0259 m e\u026a"),
        ("ros\u00e9", "\u0279 o\u028a z \u02c8e\u026a"),
        ("M\u00fcller", "m \u02c8\u028c l \u025a"),
        ("Q&A", "k j \u02c8u   \u02c8\u00e6 n d   \u02c8e\u026a"),
        ("AT&T", "\u02c8e\u026a   t \u02c8i   \u02c8\u00e6 n d   t \u02c8i"),
    ],
)
def test_the_phones_of_accented_words_and_initials(text: str, phones: str) -> None:
    assert " ".join(pronounced(text)) == phones


def test_a_letter_at_the_end_keeps_the_full_stop() -> None:
    assert pronounced("Take vitamin D.")[-1] == pronounced("This is plan B. ")[-1] == "."


def test_letters_of_other_scripts_are_silent_ones() -> None:
    assert silent_letters("ab\u6771 caf\u00e9 Jos\u00e9 \u00df \u00b2 \u0663 \u0436") == {"\u6771", "\u0436"}
    assert silent_letters("plain text, 5 km") == set()


def test_phones_are_distinct() -> None:
    assert len(set(PHONES)) == len(PHONES) == 56
