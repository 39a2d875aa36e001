"""Rows of a batch: sequences do not touch, nothing sees the future, closed gates close."""

import pytest
import torch

from csm.model import CSMModel


def batch_of(model: CSMModel, random_turn, names, *, past=()):
    builder = model.new_rows()
    for index, name in enumerate(names):
        builder.begin_sequence([random_turn(p, frames=4) for p in past])
        builder.add_spoken(random_turn(name, f"text of {name}", 5 + index), length=4 + 2 * index)
        builder.add_transcribed(random_turn(name + "h", "heard", 4 + index))
    return builder.build()


@torch.no_grad()
@pytest.mark.parametrize("kv_heads", [0, 1])
def test_the_rows_of_a_sequence_do_not_depend_on_the_others(tiny_model, random_turn, kv_heads) -> None:
    model = tiny_model(n_kv_heads=kv_heads)
    together = model.hidden_rows(batch_of(model, random_turn, ["a", "bb", "ccc"], past=["p", "q"]))
    for place, first in enumerate(["a", "bb", "ccc"]):
        others = ["x", "yy", "zzz"]
        others[place] = first
        batch = batch_of(model, random_turn, others, past=["p", "q"])
        start, end = batch.cu_seqlens[place : place + 2].tolist()
        mine = model.hidden_rows(batch)[start:end]
        starts = batch_of(model, random_turn, ["a", "bb", "ccc"]).cu_seqlens
        original = together[int(starts[place]) : int(starts[place + 1])]
        torch.testing.assert_close(mine, original, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_row_sees_nothing_that_comes_after_it(tiny_model, random_turn) -> None:
    model = tiny_model()
    turn = random_turn("a", frames=10)
    later = turn._replace(codes=torch.cat([turn.codes[:, :6], 23 - turn.codes[:, 6:]], dim=1))
    hidden = []
    for t in (turn, later):
        builder = model.new_rows()
        builder.add_spoken(t)
        builder.add_transcribed(random_turn("b"))
        hidden.append(model.hidden_rows(builder.build()))
    text = len(model.codec.encode_turn(turn.text, 0))
    torch.testing.assert_close(hidden[0][: text + 6], hidden[1][: text + 6], atol=1e-5, rtol=1e-5)
    assert not torch.allclose(hidden[0][text + 6 :], hidden[1][text + 6 :])


@torch.no_grad()
def test_closed_gates_make_reading_and_memory_vanish_bit_for_bit(tiny_model, random_turn) -> None:
    model = tiny_model()
    bare = CSMModel(
        type(model.config)(**{**vars(model.config), "cross_layers": (), "memory_layers": ()})
    ).eval()
    bare.load_state_dict(model.state_dict(), strict=False)
    batch = batch_of(model, random_turn, ["a", "bb"], past=["p"])
    assert not torch.allclose(model.hidden_rows(batch), bare.hidden_rows(batch))
    for name, parameter in model.named_parameters():
        if name.endswith("gate"):
            parameter.zero_()
    assert torch.equal(model.hidden_rows(batch), bare.hidden_rows(batch))


@torch.no_grad()
def test_the_past_is_read_and_a_sequence_without_one_reads_an_empty_memory(tiny_model, random_turn) -> None:
    model = tiny_model()
    with_past = batch_of(model, random_turn, ["a"], past=["p", "q"])
    other_past = batch_of(model, random_turn, ["a"], past=["p", "r"])
    none = batch_of(model, random_turn, ["a"])
    hidden = [model.hidden_rows(b) for b in (with_past, other_past, none)]
    assert not torch.allclose(hidden[0], hidden[1]) and not torch.allclose(hidden[0], hidden[2])
    # Without a past only the learned nothing is read: what could be remembered does not matter.
    model.memory.writer.semantic[1].weight.data.mul_(5)
    assert torch.equal(model.hidden_rows(none), hidden[2])
    for read in model.backbone.memory_reads.values():
        read.v_proj.weight.zero_()
    off = model.hidden_rows(none)
    for read in model.backbone.memory_reads.values():
        read.gate.zero_()
    torch.testing.assert_close(model.hidden_rows(none), off)


@torch.no_grad()
def test_only_the_chosen_layers_read(tiny_model) -> None:
    model = tiny_model(cross_layers=(2,), memory_layers=(0, 3))
    assert list(model.backbone.voice_reads) == list(model.backbone.text_reads) == ["2"]
    assert list(model.backbone.memory_reads) == ["0", "3"]
