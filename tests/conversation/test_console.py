"""At the terminal every typed line gets its whole reply."""

from csm.conversation.console import typed_replies


def test_lines_are_answered_in_turn_and_empty_ones_skipped(conversation) -> None:
    live = conversation("one two", "three", charge=0.0)
    replies = [*typed_replies(live, ["hi", " ", "and you"])]
    assert [reply.text for reply in replies] == ["one two", "three"]
    assert all(reply.waveform.abs().max() > 0 and not reply.failure for reply in replies)
    assert [turn.text for turn in live.speaker.turns] == ["hi", "one two", "and you", "three"]


def test_a_reply_that_cannot_be_spoken_is_named(conversation) -> None:
    live = conversation("x" * 400, charge=0.0)
    (reply,) = typed_replies(live, ["hi"])
    assert "too long to speak" in reply.failure and not reply.text
