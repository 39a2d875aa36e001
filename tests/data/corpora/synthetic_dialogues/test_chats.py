"""Chats become sentences that can be spoken, or are left out."""

import pytest

from csm.data.corpora.synthetic_dialogues.chats import excerpt, line_of, repaired


def everything(word: str) -> bool:
    return True


@pytest.mark.parametrize(
    ("message", "sentence"),
    [
        ("im doing good", "I'm doing good."),
        ("so you still feel tired huh?", "So you still feel tired huh?"),
        ("what are you up to", "What are you up to?"),
        ("oh wow haha", "Oh wow."),
        ("hahaha", ""),
        ("OH NO i dont know...", "Oh no I don't know."),
        ("really?!? that's great :)", "Really? That's great."),
        ("me,you and them", "Me, you and them."),
    ],
)
def test_a_message_gets_capitals_apostrophes_and_a_closing_mark(message, sentence):
    assert repaired(message) == sentence


def test_a_turn_is_cut_before_the_message_that_exceeds_26_words():
    assert line_of(["one two three."] * 20, everything) == " ".join(["One two three."] * 8)


@pytest.mark.parametrize("message", ["see http://x.y/z", "you shit", "it is 5 o'clock", "caf\u00e9 time"])
def test_a_turn_that_cannot_be_spoken_is_left_out(message):
    assert line_of([message], everything) is None


def test_a_word_outside_the_lexicon_leaves_the_turn_out():
    assert line_of(["hello qwxz"], lambda word: word != "qwxz") is None


def runs(*turns: tuple[str, str]) -> list[list[dict[str, str]]]:
    return [[{"sender": sender, "text": text}] for sender, text in turns]


def test_an_excerpt_is_the_longest_stretch_of_two_people():
    chat = runs(("a", "hi"), ("b", "http://x"), ("a", "so"), ("b", "yes"), ("a", "why"), ("b", "no idea"))
    assert excerpt(chat, everything) == [(0, "So."), (1, "Yes."), (0, "Why?"), (1, "No idea.")]


def test_a_chat_of_one_person_or_of_three_turns_has_no_excerpt():
    assert excerpt(runs(*[("a", "hello there")] * 6), everything) is None
    assert excerpt(runs(("a", "hi"), ("b", "hi"), ("a", "bye")), everything) is None


def test_neighbouring_turns_of_an_excerpt_have_different_speakers():
    found = excerpt(runs(("a", "x"), ("a", "y"), ("b", "z"), ("a", "u"), ("b", "v"), ("b", "w")), everything)
    assert found is not None
    assert all(first[0] != second[0] for first, second in zip(found, found[1:], strict=False))
