"""The memory of turns that left the context: bounded, and the same folded at once or written one by one."""

import pytest
import torch

from csm.network.layers import PackedSequences
from csm.network.memory import (
    GIST_DECAY,
    ConversationMemory,
    Folding,
    MemoryRead,
    filled_slots,
    folding_weights,
    seen_slots,
)
from csm.sequences.past_turns import pack_past
from csm.text import ByteCodec

COUNTS = [0, 1, 2, 3, 4, 5, 9, 30]


def past_of(counts, random_turn):
    turns = [
        [random_turn(f"s{i}_{n}", f"turn {n}", 3 + n % 4) for n in range(c)] for i, c in enumerate(counts)
    ]
    return pack_past(turns, ByteCodec(), 5)


@pytest.mark.parametrize("slots", [2, 4, 16])
def test_folding_at_once_is_writing_turn_by_turn(slots, random_turn) -> None:
    past = past_of(COUNTS, random_turn)
    memory = ConversationMemory(6, slots)
    semantic, style = torch.randn(sum(COUNTS), 6), torch.randn(sum(COUNTS), 6)
    folded = memory.fold(Folding.of(past, slots), semantic, style)
    first = 0
    for index, count in enumerate(COUNTS):
        state = memory.empty(1, torch.device("cpu"))
        for turn in range(first, first + count):
            state = memory.write(state, semantic[turn : turn + 1], style[turn : turn + 1])
        first += count
        filled = filled_slots(state.turns, slots)
        assert int(state.turns) == int(folded.turns[index]) == count
        for once, each in ((folded.semantic, state.semantic), (folded.style, state.style)):
            torch.testing.assert_close(once[index][filled[0]], each[0][filled[0]], atol=1e-5, rtol=1e-5)


def test_the_state_does_not_grow_with_the_conversation(random_turn) -> None:
    memory = ConversationMemory(6, 4)
    foldings = {n: Folding.of(past_of([n], random_turn), 4) for n in COUNTS}
    shapes = {
        memory.fold(folding, torch.randn(n, 6), torch.randn(n, 6)).semantic.shape
        for n, folding in foldings.items()
    }
    assert shapes == {(1, 4, 6)}


def test_the_newest_turns_keep_a_slot_and_older_ones_fade(random_turn) -> None:
    weights = folding_weights(past_of([9], random_turn), 4)[0]
    assert torch.equal(weights[1:], torch.eye(9).flip(1)[:3])
    gist = weights[0]
    assert not gist[6:].any() and bool((gist[:6] > 0).all())
    torch.testing.assert_close(gist.sum(), torch.tensor(1.0))
    torch.testing.assert_close(gist[2:6] / gist[1:5], torch.full((4,), 1 / GIST_DECAY))


def test_slots_count_as_filled_once_something_is_in_them() -> None:
    filled = filled_slots(torch.tensor([0, 1, 3, 4, 50]), 4)
    assert filled.int().tolist() == [[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]]


def test_rows_read_their_own_sequence_and_filled_slots_only() -> None:
    torch.manual_seed(0)
    read, memory = MemoryRead(8, 2, 4, 0.7), ConversationMemory(8, 4)
    layout = PackedSequences.of(torch.tensor([0, 3, 8]).int(), 5)
    x = torch.randn(8, 8)
    state = memory.empty(2, torch.device("cpu"))
    turns = torch.tensor([0, 2])
    one = state._replace(
        semantic=torch.randn(2, 4, 8), style=torch.randn(2, 4, 8), turns=turns, seen=seen_slots(turns, 4)
    )
    out = read(x, layout, one)
    other = one._replace(semantic=torch.cat([one.semantic[:1], torch.randn(1, 4, 8)]))
    changed = read(x, layout, other)
    assert torch.equal(out[:3], changed[:3]) and not torch.allclose(out[3:], changed[3:])
    # What lies in slots that are not filled is never read.
    empty = one._replace(semantic=one.semantic.clone())
    empty.semantic[0] = 100.0
    empty.semantic[1, [0, 3]] = 100.0
    torch.testing.assert_close(read(x, layout, empty), out)


def test_slots_of_a_kind_that_is_left_out_change_nothing() -> None:
    torch.manual_seed(2)
    memory = ConversationMemory(8, 4)
    state = memory.empty(1, torch.device("cpu"))
    for _ in range(2):
        state = memory.write(state, torch.randn(1, 8), torch.randn(1, 8))
    rows, layout = torch.randn(3, 8), PackedSequences.of(torch.tensor([0, 3], dtype=torch.int32), 3)
    changed = {
        "semantic": state._replace(semantic=torch.randn_like(state.semantic)),
        "style": state._replace(style=torch.randn_like(state.style)),
    }
    for kind, other in (("semantic", "style"), ("style", "semantic")):
        read = MemoryRead(8, 2, 4, 0.7, (kind,))
        assert torch.equal(read(rows, layout, state), read(rows, layout, changed[other]))
        assert not torch.equal(read(rows, layout, state), read(rows, layout, changed[kind]))


def test_a_closed_gate_gives_the_rows_back_bit_for_bit() -> None:
    read, memory = MemoryRead(8, 2, 4, 0.0), ConversationMemory(8, 4)
    x = torch.randn(5, 8)
    state = memory.write(memory.empty(1, torch.device("cpu")), torch.randn(1, 8), torch.randn(1, 8))
    assert torch.equal(read(x, PackedSequences.of(torch.tensor([0, 5]).int(), 5), state), x)


def test_a_turn_is_described_by_its_own_text_and_codes_alone(tiny_model, random_turn) -> None:
    model = tiny_model()
    turns = [random_turn("a", "one two", 5), random_turn("b", "three", 8, 1), random_turn("c", "x", 2)]
    together = model.turn_vectors(pack_past([turns], model.codec, 5))
    for index, turn in enumerate(turns):
        alone = model.turn_vectors(pack_past([[turn]], model.codec, 5))
        for a, b in zip(together, alone, strict=True):
            torch.testing.assert_close(a[index], b[0], atol=1e-5, rtol=1e-5)
    said, voiced = together
    other_text = model.turn_vectors(pack_past([[turns[0]._replace(text="else")]], model.codec, 5))
    assert not torch.allclose(other_text[0][0], said[0])
    torch.testing.assert_close(other_text[1][0], voiced[0])
    other_voice = model.turn_vectors(pack_past([[turns[0]._replace(speaker=3)]], model.codec, 5))
    assert not torch.allclose(other_voice[1][0], voiced[0])
