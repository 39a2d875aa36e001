"""Micro-batches padded to one size: losses and gradients stay, and nothing in the step depends on a value."""

import dataclasses
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from csm.losses import ConversationTargets, conversational_loss
from csm.model import CSMModel
from csm.network import cross_entropy, varlen
from csm.network.fixed_shapes import MULTIPLE, RowBudget, padded, sizes_of
from csm.sequences.one_copy import map_tensors
from csm.sequences.packed_batch import IGNORE, RowBatch
from tests.generation.test_static_lane import OnCuda, host_work

__all__ = ["host_work"]  # a fixture

WHOLE = {"depth_inputs": "sum", "latent_dim": 12, "letters_per_frame": 2, "text": "bytes"}
TEXT = "hello there, dear"


def batch_of(model: CSMModel, random_turn, seed: int, turns: int, aligned: bool = True) -> RowBatch:
    """Turns of random lengths, some of them before the sequences; a third of the frames train the depth."""
    draw, rows = random.Random(seed), model.new_rows()
    for index in range(turns):
        past = [random_turn(f"p{seed}", "what?", draw.randint(3, 9)) for _ in range(draw.randint(0, 6))]
        rows.begin_sequence(past)
        for number in range(draw.randint(1, 3)):
            frames, text = draw.randint(9, 30), TEXT[: draw.randint(3, len(TEXT))]
            turn = random_turn(f"{seed}.{index}.{number}", text, frames)
            if draw.random() < 0.4:
                rows.add_transcribed(turn)
                continue
            ids = len(model.codec.encode_turn(text, 0))
            ends = torch.linspace(frames / ids, frames, ids) if aligned else None
            # Text that is stretched over fewer frames ends before its turn: see BeyondText.
            rows.add_spoken(turn._replace(ends=ends), length=None if aligned else int(0.7 * frames) or 1)
    batch = rows.build()
    batch.depth_rows = batch.trained_frames()[::3]
    return model.with_layout(batch)


def budget_of(model: CSMModel, batches: list[RowBatch]) -> RowBudget:
    rows = max(len(batch.text) for batch in batches)
    return RowBudget.of([(b, b.layout) for b in batches], rows=rows, max_context=model.config.max_context)


def loss_and_gradients(model: CSMModel, batch: RowBatch) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    model.zero_grad()
    output = model(batch=batch, label_smoothing=0.1)
    found = conversational_loss(output, ConversationTargets.of(batch, 2, model.code_vectors))
    found.total.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    return {"total": found.total.detach(), **{k: v.detach() for k, v in found.parts.items()}}, gradients


def differs(model: CSMModel, first: RowBatch, second: RowBatch) -> float:
    """The largest difference of a part of the loss or a gradient, relative to its largest magnitude.

    That of a gate, one number, may be 0 by chance: from 0.01 on it is the measure itself.
    """
    pairs = list(zip(loss_and_gradients(model, first), loss_and_gradients(model, second), strict=True))
    assert all(a.keys() == b.keys() for a, b in pairs)
    return max(
        float((a[name] - b[name]).abs().max() / a[name].abs().max().clamp_min(1e-2))
        for a, b in pairs
        for name in a
    )


@pytest.fixture
def model(tiny_model) -> CSMModel:
    torch.manual_seed(0)  # biases are drawn from it
    model = tiny_model(**WHOLE, max_context=400).train()
    model.set_code_vectors(torch.randn(5, 24, 12, generator=torch.Generator().manual_seed(1)))
    return model


def shapes(batch: RowBatch) -> list[tuple[int, ...]]:
    found: list[tuple[int, ...]] = []
    map_tensors(
        [getattr(batch, field.name) for field in dataclasses.fields(batch) if field.name != "ids"],
        lambda tensor: found.append(tuple(tensor.shape)) or tensor,
    )
    return found


def without_spans(batch: RowBatch) -> RowBatch:
    """Spans stay on the host, as they are; no graph sees them."""
    return dataclasses.replace(batch, voice_spans=[], text_spans=[])


@pytest.mark.parametrize("aligned", [True, False])
def test_padding_changes_neither_losses_nor_gradients(model, random_turn, aligned) -> None:
    batches = [batch_of(model, random_turn, seed, 1 + seed, aligned) for seed in range(6)]
    budget = budget_of(model, batches)
    made = [padded(batch, model.config, budget) for batch in batches]
    assert (budget.band is None) or aligned
    for batch, more in zip(batches, made, strict=True):
        # fp32 sums over other numbers of rows: measured 6e-6 at most.
        assert differs(model, batch, more) < 5e-5
    assert len({tuple(shapes(without_spans(batch))) for batch in made}) == 1
    assert len({tuple(shapes(without_spans(batch))) for batch in batches}) == len(batches)


def test_a_batch_of_one_kind_of_turn_gets_the_size_of_all(model, random_turn) -> None:
    """Nothing transcribed, or nothing spoken, or no past: what is missing is padding altogether."""
    batches = [batch_of(model, random_turn, seed, 4) for seed in range(3)]
    budget = budget_of(model, batches)
    spoken, transcribed = model.new_rows(), model.new_rows()
    spoken.add_spoken(random_turn("s"))
    transcribed.add_transcribed(random_turn("t"))
    wanted = tuple(shapes(without_spans(padded(batches[0], model.config, budget))))
    for rows in (spoken, transcribed):
        batch = model.with_layout(rows.build())
        more = padded(batch, model.config, budget)
        assert differs(model, batch, more) < 5e-5
        found = tuple(shapes(without_spans(more)))
        # A batch without its own choice of frames gets one of all, and so the size of the others.
        assert found == wanted


def test_a_padded_row_that_is_counted_is_found(model, random_turn) -> None:
    """The comparison above sees one target of padding, of each kind."""
    batch = batch_of(model, random_turn, 2, 4)
    budget = budget_of(model, [batch])
    last = slice(-1, None)
    faults = {"code_target": 1, "text_target": 1, "duration_target": 0.5, "pace_target": 0.5}
    for name, value in faults.items():
        more = padded(batch, model.config, budget)
        getattr(more, name)[len(batch.text) :] = value
        assert differs(model, batch, more) > 1e-3, name
    more = padded(batch, model.config, budget)
    more.prosody_known[last] = True
    more.prosody_target[last] = 3.0
    more.prosody_known[len(batch.text) :] = True
    assert differs(model, batch, more) > 1e-3
    more = padded(batch, model.config, budget)
    more.layout.folding.weights[:, :, len(batch.past.speaker) :] = 0.5
    assert differs(model, batch, more) > 1e-3


def test_a_batch_beyond_the_budget_gets_a_multiple_of_all_sizes(model, random_turn) -> None:
    budget = budget_of(model, [batch_of(model, random_turn, 1, 2)])
    batch = batch_of(model, random_turn, 5, 9)
    more = padded(batch, model.config, budget)
    assert len(more.text) > len(batch.text) and len(more.text) % budget.sizes.rows == 0
    assert len(more.past.text) // budget.sizes.past_text == len(more.text) // budget.sizes.rows > 1
    assert differs(model, batch, more) < 5e-5


@pytest.mark.parametrize("turns", range(1, 9))
def test_micro_batches_of_one_size_fit_whatever_it_is(model, random_turn, turns) -> None:
    batch = batch_of(model, random_turn, turns, turns)
    budget = budget_of(model, [batch])
    assert budget.fitting(sizes_of(batch, batch.layout)) == budget.sizes


def test_queries_beyond_their_text_add_one_size_and_longer_parts_alone_no_rows(model, random_turn) -> None:
    batches = [batch_of(model, random_turn, seed, 3) for seed in range(4)]
    budget = budget_of(model, batches)
    assert budget.sizes.beyond == 0
    own = sizes_of(batches[0], batches[0].layout)
    found = {budget.fitting(own._replace(beyond=count)) for count in range(1, budget.sizes.voice_queries)}
    assert len(found) == 1 and found.pop().beyond == budget.sizes.voice_queries
    longer = budget.fitting(own._replace(heard_longest=budget.sizes.heard_longest + 1))
    assert longer == budget.sizes._replace(heard_longest=2 * budget.sizes.heard_longest)
    more = budget.fitting(own._replace(rows=budget.sizes.rows + 1))
    assert more.rows == 2 * budget.sizes.rows and more.longest == budget.sizes.longest


def test_a_sequence_that_no_model_takes_is_refused(model, random_turn) -> None:
    budget = budget_of(model, [batch_of(model, random_turn, 1, 2)])
    rows = model.new_rows()
    rows.add_spoken(random_turn("long", frames=400))
    with pytest.raises(
        ValueError, match="has 415 rows, the model's max_context is 400: cut the conversation"
    ):
        padded(rows.build(), model.config, budget)


def test_sizes_suit_tensor_cores_and_leave_room(model, random_turn) -> None:
    batches = [batch_of(model, random_turn, seed, 4) for seed in range(4)]
    budget = budget_of(model, batches)
    sizes = budget.sizes
    for name in ("rows", "voice", "frames", "depth", "text", "past_text", "voice_keys", "text_queries"):
        assert getattr(sizes, name) % MULTIPLE == 0, name
    for batch in batches:
        assert all(a <= b for a, b in zip(sizes_of(batch, batch.layout), sizes, strict=True) if b)


def test_padded_targets_are_none(model, random_turn) -> None:
    batch = batch_of(model, random_turn, 3, 4)
    more = padded(batch, model.config, budget_of(model, [batch]))
    rows = len(batch.text)
    assert (more.code_target[rows:] == IGNORE).all() and (more.text_target[rows:] == IGNORE).all()
    assert more.duration_target[rows:].isnan().all() and not more.prosody_known[rows:].any()
    assert more.target_rows().voice_frames == batch.target_rows().voice_frames
    for name in ("voice", "frames", "depth", "text", "duration", "pace"):
        own = getattr(batch.target_rows(), name)
        found = getattr(more.target_rows(), name)
        assert torch.equal(found[: len(own)], own) and (found[len(own) :] >= rows).all(), name


def test_a_cuda_graph_can_hold_the_forward_pass(monkeypatch, host_work, model, random_turn) -> None:
    """On tensors without values that claim to be on CUDA, as in test_static_lane."""
    monkeypatch.setattr(varlen, "KERNEL", None)
    monkeypatch.setattr(cross_entropy, "HAS_LIGER", False)  # nor does a compiled step call it
    batch = batch_of(model, random_turn, 3, 4)
    more = padded(batch, model.config, budget_of(model, [batch]))
    config = model.config
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        with torch.device("cuda"):
            on_cuda = CSMModel(config).train()
        on_cuda.set_code_vectors(torch.randn(5, 24, 12))
        named = {f.name: getattr(more, f.name) for f in dataclasses.fields(more)}
        there = map_tensors(list(named.values()), lambda t: mode.from_tensor(t).to("cuda"))
        moved = RowBatch(**dict(zip(named, there, strict=True)))
        with host_work.counted() as found, OnCuda():
            output = on_cuda(batch=moved, label_smoothing=0.1)
        assert not found.waits and output.depth.device.type == "cuda"


def test_neither_pass_nor_the_loss_waits_for_the_device(host_work, tiny_model, random_turn) -> None:
    """The letters' loss apart, which is no part of the graphs and reads sizes that the host has."""
    model = tiny_model(**{**WHOLE, "letters_per_frame": 0}, max_context=400).train()
    model.set_code_vectors(torch.randn(5, 24, 12))
    batch = batch_of(model, random_turn, 3, 4)
    more = padded(batch, model.config, budget_of(model, [batch]))
    with host_work.counted() as found:
        output = model(batch=more, label_smoothing=0.1)
        targets = ConversationTargets.of(more, 2, model.code_vectors)
        conversational_loss(output, targets).total.backward()
    assert not found.waits and not found.copies, (found.waits, found.copies)


def test_the_step_of_one_size_is_compiled_once_and_its_graphs_can_be_replayed() -> None:
    """One graph each way, three batches of other lengths, each copied to the first one's addresses."""
    program = Path(__file__).with_name("step_of_one_size.py")
    done = subprocess.run([sys.executable, str(program)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["graphs"], found["breaks"], found["calls"]) == (1, 0, [3, 3]), found
    assert len(set(found["rows"])) == 3
    assert found["loss"] < 1e-6 and found["gradient"] < 1e-4 and found["gradients"] > 60, found
