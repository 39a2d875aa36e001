"""Labels of a faster clip are those of the turn at the faster clip's times."""

import tracemalloc

import torch

from csm.data.forced_alignment import symbols
from csm.data.phone_labels import NONE, PhoneLabels
from csm.text import ByteCodec


def test_steps_follow_the_speed_and_end_where_the_text_does() -> None:
    codec, text = ByteCodec(), "abcd"
    count = len(symbols(codec, text))
    ends = torch.arange(1, count + 1) * 0.2
    labels = PhoneLabels(codec, [("t", text)], {"t": ends})
    plain = labels.steps("t", text, 0.0, 10 * count + 5)
    assert (plain[10 * count :] == NONE).all() and (plain[: 10 * count] != NONE).all()
    # At twice the speed a step of 20 ms holds two of the turn, whose border is the step's middle.
    assert torch.equal(labels.steps("t", text, 0.0, 5 * count, speed=2.0), plain[1 : 10 * count : 2])
    assert torch.equal(labels.steps("t", text, 0.1, 4, speed=2.0), plain[11:19:2])
    assert labels.steps("other", text, 0.0, 3).tolist() == [NONE] * 3


def test_texts_are_read_once_and_nothing_of_a_turn_is_held() -> None:
    codec = ByteCodec()
    ends = {f"t{number}": torch.ones(len(symbols(codec, "abc"))).cumsum(0) for number in range(500)}
    tracemalloc.start()
    try:
        labels = PhoneLabels(codec, ((name, "abC"[number % 3 :]) for number, name in enumerate(ends)), ends)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 500 * 20
    assert labels.classes == sorted(set(symbols(codec, "abc").tolist()))
    places = [labels.classes.index(symbol) for symbol in symbols(codec, "abc").tolist()]
    assert labels.steps("t3", "abC", 0.4, 101)[::100].tolist() == places[:3:2]
