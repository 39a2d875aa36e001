"""Sentences are yielded as soon as they are complete, and no word of a text is lost."""

import json
import random
import re
import time
from pathlib import Path

import pytest

from csm.generation import sentences as module
from csm.generation.sentences import LONGEST_SENTENCE, sentences

TABLE = Path(__file__).parents[1] / "sentence_cases.jsonl"
CASES = [json.loads(line) for line in TABLE.read_text(encoding="utf-8").splitlines()]
MET, MISSED = ([case for case in CASES if case["met"] is met] for met in (True, False))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Hello there. Who are you? Me!", ["Hello there.", "Who are you?", "Me!"]),
        ("It costs 3.5 pounds, e.g.this", ["It costs 3.5 pounds, e.g.this"]),
        ('"Stop!" he said. (Quietly.) Then: "No."', ['"Stop!" he said.', "(Quietly.)", 'Then: "No."']),
        ("Wait... what\nnow", ["Wait... what now"]),
        ("Ask Dr. Smith, e.g. now. Yes.", ["Ask Dr. Smith, e.g. now.", "Yes."]),
        ("He saw most. Then best. Go.", ["He saw most.", "Then best.", "Go."]),
        ("", []),
        (" \n ", []),
    ],
)
def test_sentences_end_at_marks_followed_by_space(text, expected):
    assert list(sentences([text])) == expected


@pytest.mark.parametrize("case", MET, ids=lambda case: ascii(case["text"]))
def test_a_text_is_cut_as_the_table_says(case) -> None:
    assert list(sentences([case["text"]])) == case["sentences"]


@pytest.mark.parametrize("case", MISSED, ids=lambda case: ascii(case["text"]))
@pytest.mark.xfail(strict=True, reason="not covered yet")
def test_a_text_that_is_not_cut_right_yet(case) -> None:
    assert list(sentences([case["text"]])) == case["sentences"]


def test_however_a_text_of_the_table_arrives_its_sentences_are_the_same() -> None:
    draw = random.Random(0)
    text = " ".join(case["text"] for case in CASES)
    whole = list(sentences([text]))
    for longest in (1, 2, 5, 40):
        pieces, place = [], 0
        while place < len(text):
            pieces.append(text[place : place + draw.randint(1, longest)])
            place += len(pieces[-1])
        assert list(sentences(pieces)) == whole
    for case in CASES:
        assert list(sentences(case["text"])) == list(sentences([case["text"]]))


@pytest.mark.parametrize("case", CASES, ids=lambda case: ascii(case["text"]))
def test_a_text_of_the_table_arrives_in_characters_in_words_or_whole(case) -> None:
    text = case["text"]
    whole = list(sentences([text]))
    assert list(sentences(text)) == whole
    assert list(sentences(re.findall(r"\S+\s*|\s+", text))) == whole
    assert list(sentences(re.findall(r"\s*\S+|\s+", text))) == whole


PARTS = (
    "Dr. e.g. etc. No. no. sec. Jan. sat. U.S. a.m. Inc. St. Jr. vs. fig. p. in. A. I 1. 12. 3 x he He the "
    "Oh Go.You hello.Bob \u00e9t\u00e9 \u00c9 ... \u2026 . ! ? ?! ( ) [ ] \" ' \u201c \u201d \u2018 "
    "\u2019 \u00ab \u00bb * ** _ , : ; -"
).split()
SPACES = ("", "", " ", " ", " ", "  ", "\n", "\n\n", "\t")


@pytest.mark.parametrize("seed", range(8))
def test_however_abbreviations_signs_and_quotes_arrive_their_sentences_are_the_same(seed: int) -> None:
    draw = random.Random(seed)
    for _ in range(500):
        parts = [draw.choice(PARTS) + draw.choice(SPACES) for _ in range(draw.randint(2, 14))]
        text = "".join(parts)
        whole = list(sentences([text]))
        assert list(sentences(text)) == whole == list(sentences(parts)), text
        assert "".join("".join(whole).split()) == "".join(text.split()), text


def test_pieces_of_one_word_without_a_mark_are_searched_once_each(monkeypatch) -> None:
    searched = 0

    class Counted:
        def finditer(self, text: str, start: int):
            nonlocal searched
            searched += len(text) - start
            return marks.finditer(text, start)

    marks = module._MARKS
    monkeypatch.setattr(module, "_MARKS", Counted())
    assert len(" ".join(sentences("word " for _ in range(2000))).split()) == 2000
    assert searched <= 3 * 5 * 2000  # characters


def test_the_table_has_no_text_twice_and_loses_no_word_of_it() -> None:
    assert len({case["text"] for case in CASES}) == len(CASES) >= 140
    for case in CASES:
        assert "".join(case["text"].split()) == "".join("".join(case["sentences"]).split())


def test_a_sentence_is_yielded_before_the_next_piece_is_taken():
    asked = []

    def pieces():
        for piece in ("One", ". T", "wo. Thr", "ee"):
            asked.append(piece)
            yield piece

    spoken = sentences(pieces())
    assert next(spoken) == "One." and len(asked) == 2
    assert next(spoken) == "Two." and len(asked) == 3
    assert list(spoken) == ["Three"]


def test_however_a_text_is_cut_the_words_are_the_same_and_no_sentence_is_too_long():
    draw = random.Random(0)
    for _ in range(200):
        words = ["a" * draw.randint(1, 12) + draw.choice(["", "", "", ",", ";", ".", "?"]) for _ in range(80)]
        text, pieces = " ".join(words), []
        place = 0
        while place < len(text):
            size = draw.randint(1, 30)
            pieces.append(text[place : place + size])
            place += size
        said = list(sentences(pieces))
        assert " ".join(said).split() == words
        assert max(map(len, said)) <= LONGEST_SENTENCE
        assert said == list(sentences([text]))


def test_ten_thousand_characters_without_a_mark_are_cut_between_words_and_a_word_of_them_is_refused():
    began = time.perf_counter()
    assert " ".join(sentences(["word " * 2000])).split() == ["word"] * 2000
    with pytest.raises(ValueError, match="a word of 10000 characters"):
        list(sentences(["x" * 10_000]))
    assert time.perf_counter() - began < 2
