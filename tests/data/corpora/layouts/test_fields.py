"""Fields of entries: checked, never guessed."""

import random

import pytest

from csm.data.corpora.layouts.fields import channel_of, field, label_of, optional, speaker_of, text_of

LETTERS = "ab \u00e9\u2028\U0001f600\ud800\udfff\n\0"


@pytest.mark.parametrize("seed", range(200))
def test_what_is_taken_as_a_text_or_name_can_be_written(seed: int) -> None:
    value = "".join(random.Random(seed).choices(LETTERS, k=seed % 7))
    for taken in (text_of, speaker_of):
        try:
            assert taken(value).encode() and "\n" not in taken(value)
        except ValueError as error:
            reasons = ("lone surrogate", "control character", "is empty")
            assert str(error).encode() and any(reason in str(error) for reason in reasons)
            assert "surrogate" not in str(error) or any("\ud800" <= letter <= "\udfff" for letter in value)


@pytest.mark.parametrize(("value", "number"), [(0, 0), (3, 3), ("0", 0), ("12", 12), (1.0, 1)])
def test_a_channel_is_a_whole_number(value: object, number: int) -> None:
    assert channel_of(value) == number and type(channel_of(value)) is int


@pytest.mark.parametrize("value", [None, True, False, -1, 0.6, -1.0, float("nan"), "", "-1", "x", [0], {}])
def test_anything_else_is_no_channel(value: object) -> None:
    with pytest.raises(ValueError, match="channel is .*: expected 0, 1, ..."):
        channel_of(value)


def test_a_label_is_a_name_or_nothing() -> None:
    assert [label_of(value, "emotion") for value in (None, "", " glad ", 3)] == [None, None, "glad", "3"]
    with pytest.raises(ValueError, match="emotion is \\['sad'\\]"):
        label_of(["sad"], "emotion")


def test_the_name_that_a_key_is_spelled_like_is_the_one_that_is_named() -> None:
    with pytest.raises(ValueError, match="text is missing: the entry has 'Text'; rename it to text"):
        field({"Text": "x"}, "turns", "text", "speakers")
    with pytest.raises(ValueError, match="'duraton' is spelled like duration"):
        optional({"duraton": 1}, "length", "duration")
