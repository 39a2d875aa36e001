"""Turns before a sequence: what is packed of them for the memory."""

import pytest
import torch

from csm.sequences.past_turns import pack_past
from csm.sequences.turns import TurnFrames
from csm.text import ByteCodec

CODEC = ByteCodec()


def test_a_turn_without_text_is_packed_with_its_voice(random_turn) -> None:
    past = pack_past([[random_turn("a", " ", speaker=2)]], CODEC, 5)
    assert past.text.tolist() == CODEC.listen_prefix(2) and past.speaker.tolist() == [CODEC.speaker_id(2)]
    assert len(past.codes) == 9


def test_an_empty_past_is_empty() -> None:
    past = pack_past([[], []], CODEC, 5)
    assert past.codes.shape == (0, 5) and past.counts.tolist() == [0, 0] and len(past.sequence) == 0


def test_a_turn_without_frames_is_refused() -> None:
    empty = TurnFrames("bad", "hi", 0, torch.zeros(5, 0, dtype=torch.int64))
    with pytest.raises(ValueError, match="bad has no voice frames"):
        pack_past([[empty]], CODEC, 5)


def test_gradients_pass_through_the_newest_turns_alone(random_turn) -> None:
    past = pack_past([[random_turn(name) for name in "abc"]], CODEC, 5, gradient_turns=2)
    assert past.learns.tolist() == [False, True, True] and past.age.tolist() == [2, 1, 0]
