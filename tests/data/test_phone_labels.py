"""Labels of a faster clip are those of the turn at the faster clip's times."""

import torch

from csm.data.forced_alignment import symbols
from csm.data.phone_labels import NONE, PhoneLabels
from csm.text import ByteCodec


def test_steps_follow_the_speed_and_end_where_the_text_does() -> None:
    codec, text = ByteCodec(), "abcd"
    count = len(symbols(codec, text))
    ends = torch.arange(1, count + 1) * 0.2
    labels = PhoneLabels(codec, {"t": text}, {"t": ends})
    plain = labels.steps("t", 0.0, 10 * count + 5)
    assert (plain[10 * count :] == NONE).all() and (plain[: 10 * count] != NONE).all()
    # At twice the speed a step of 20 ms holds two of the turn, whose border is the step's middle.
    assert torch.equal(labels.steps("t", 0.0, 5 * count, speed=2.0), plain[1 : 10 * count : 2])
    assert torch.equal(labels.steps("t", 0.1, 4, speed=2.0), plain[11:19:2])
    assert labels.steps("other", 0.0, 3).tolist() == [NONE] * 3
