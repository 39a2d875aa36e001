"""The first clause of a reply is spoken before its first sentence is whole."""

import pytest

from csm.conversation.clauses import clauses


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Well, I had a plane, you see. No time.", ["Well, I had a plane,", "you see.", "No time."]),
        ("Yes. I had a plane to catch, and no time.", ["Yes.", "I had a plane to catch, and no time."]),
        ("Short, one.", ["Short, one."]),
        ("", []),
    ],
)
def test_a_text_is_split_the_same_however_it_arrives(text, expected) -> None:
    assert [*clauses([text])] == expected
    assert [*clauses(text)] == expected, "letter by letter"


def test_a_clause_comes_before_the_rest_has_arrived() -> None:
    def arriving():
        yield "I had a plane, "
        raise AssertionError("asked for more")

    assert next(clauses(arriving())) == "I had a plane,"
