"""A step has the phone that is spoken at its middle."""

from __future__ import annotations

import torch

from csm.data.phone_labels import NONE, PhoneLabels
from csm.text import ByteCodec, text_codec

CODEC = text_codec("bytes", 8)
assert isinstance(CODEC, ByteCodec)


def labels() -> PhoneLabels:
    # Before the text until 0.045 s, h until 0.085, i until 0.125, after it until 0.2.
    return PhoneLabels(CODEC, {"t": "hI"}, {"t": torch.tensor([0.045, 0.085, 0.125, 0.20])})


def test_classes_are_those_that_occur_in_the_order_of_their_ids() -> None:
    found = labels()
    assert found.classes == sorted(found.classes) and len(found.classes) == 4
    assert {ord("h"), ord("i")} < set(found.classes), "capitals are spoken as lower case"


def test_steps_take_the_phone_of_their_middle_and_none_after_the_end() -> None:
    found = labels()
    before, h, i, after = map(found.classes.index, CODEC.encode_turn("hi", 0)[1:])
    # Middles at 0.01, 0.03, 0.05, ...: a phone ends where the next begins.
    steps = found.steps("t", 0.0, 12).tolist()
    assert steps == [before, before, h, h, i, i, after, after, after, after, NONE, NONE]


def test_a_stretch_begins_in_the_middle_of_a_turn() -> None:
    found = labels()
    assert torch.equal(found.steps("t", 0.06, 5), found.steps("t", 0.0, 8)[3:])


def test_a_turn_without_alignment_has_no_label() -> None:
    assert labels().steps("other", 0.0, 3).tolist() == [NONE] * 3
