"""The conversational loss: each part weighs what the config says, however a step is drawn or split."""

import dataclasses
import math

import pytest
import torch

from csm.losses import (
    LOG_ENERGY_CENTRE,
    LOG_F0_CENTRE,
    ConversationTargets,
    LossConfig,
    conversational_loss,
    share_of_codebooks,
)
from csm.sequences.packed_batch import IGNORE

NAMES = ["codebook0", "semantic", "acoustic", "text", "pitch", "voicing", "energy", "duration", "pace"]


@pytest.fixture
def model(tiny_model):
    return tiny_model()


@pytest.fixture
def fill(model, random_turn):
    """Makes a batch of a few turns; `quiet` ones are not trained on."""

    def make(names, quiet=()):
        builder = model.new_rows()
        for index, name in enumerate(names):
            builder.begin_sequence()
            turn = random_turn(name, f"says {name}", 4 + 3 * index)
            ids = len(model.codec.encode_turn(turn.text, turn.speaker))
            turn = turn._replace(ends=torch.linspace(0, 1, ids).square() * turn.codes.shape[1])
            builder.add_spoken(turn, train=name not in quiet)
            builder.add_transcribed(random_turn(name + "h", "heard " * (index + 1)), train=name not in quiet)
        return builder.build()

    return make


def loss_of(model, batch, config=None):
    return conversational_loss(model.logits(batch), ConversationTargets.of(batch, 2), config)


@torch.no_grad()
def test_the_total_is_the_weighted_sum_of_the_named_parts(model, fill) -> None:
    batch = fill(["a", "b"])
    weights = {name: 0.1 + 0.2 * i for i, name in enumerate(NAMES)}
    result = loss_of(model, batch, LossConfig(**weights))
    assert list(result.parts) == NAMES
    scale = {"semantic": 1 / 4, "acoustic": 3 / 4}  # of the depth decoder's four codebooks one is semantic
    expected = sum(weights[n] * scale.get(n, 1.0) * float(v) for n, v in result.parts.items())
    assert float(result.total) == pytest.approx(expected, rel=1e-5)
    silent = loss_of(model, batch, LossConfig(**dict.fromkeys(NAMES, 0.0)))
    assert float(silent.total) == 0 and float(silent.parts["text"]) > 0


@torch.no_grad()
def test_the_parts_are_the_means_they_are_said_to_be(model, fill) -> None:
    batch = fill(["a", "b"])
    out, parts = model.logits(batch), loss_of(model, batch).parts
    speaks, frames = batch.code_target[:, 0] != IGNORE, batch.code_target[:, 1] != IGNORE
    ce = torch.nn.functional.cross_entropy
    torch.testing.assert_close(parts["codebook0"], ce(out.codebook0, batch.code_target[speaks, 0]))
    for name, which in (("semantic", slice(1, 2)), ("acoustic", slice(2, 5))):
        logits = out.depth[:, which.start - 1 : which.stop - 1].flatten(0, 1)
        torch.testing.assert_close(parts[name], ce(logits, batch.code_target[frames, which].flatten()))
    writes = batch.text_target != IGNORE
    torch.testing.assert_close(parts["text"], ce(out.text, batch.text_target[writes]))
    spoken = ~batch.duration_target.isnan()
    assert batch.duration_target[spoken].exp().round().tolist() == [4, 7]
    torch.testing.assert_close(parts["duration"], (out.duration - batch.duration_target[spoken]).abs().mean())
    paced = ~batch.pace_target.isnan()
    torch.testing.assert_close(parts["pace"], (out.pace - batch.pace_target[paced]).abs().mean())


@torch.no_grad()
@pytest.mark.parametrize("share", [1 / 16, 1 / 4, 1 / 2])
def test_no_part_depends_on_the_share_of_frames_drawn(model, fill, share) -> None:
    batch = fill(["a", "b", "c", "d"])
    whole = loss_of(model, batch)
    out = model.logits(batch)
    frames = batch.trained_frames()
    count = max(1, round(share * len(frames)))
    # The mean over draws without replacement comes close as 1 / sqrt(draws): 2 % of a part here.
    draws, generator = 400, torch.Generator().manual_seed(0)
    sums = dict.fromkeys(NAMES, 0.0)
    for _ in range(draws):
        drawn = torch.randperm(len(frames), generator=generator)[:count].sort().values
        few = dataclasses.replace(batch, depth_rows=frames[drawn])
        some = dataclasses.replace(out, depth=out.depth[drawn])
        for name, value in conversational_loss(some, ConversationTargets.of(few, 2)).parts.items():
            sums[name] += float(value) / draws
    for name in NAMES:
        assert sums[name] / float(whole.parts[name]) == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("groups", [[["a"], ["b"], ["c"]], [["a", "b"], ["c"]]])
def test_shards_add_up_to_the_whole_step_in_loss_and_gradient(model, fill, groups) -> None:
    whole = fill(["a", "b", "c"])
    # Turns of one name are alike wherever they stand only if their place is the same: cut the whole batch.
    expected = loss_of(model, whole)
    expected.backward()
    gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    targets = ConversationTargets.of(whole, 2)
    totals = dict.fromkeys(NAMES, 0.0)
    for group in groups:
        names = ["a", "b", "c"]
        # The other sequences are there but silent, so that every turn has the same codes.
        shard = fill(names, quiet=set(names) - set(group))
        shard.voice_count = targets.voice_count / len(groups)
        shard.frame_count = targets.frame_count / len(groups)
        shard.text_count = targets.text_count / len(groups)
        shard.turn_count = targets.turn_count / len(groups)
        shard.pace_count = targets.pace_count / len(groups)
        result = loss_of(model, shard)
        (result.total / len(groups)).backward()
        for name, value in result.parts.items():
            totals[name] += float(value.detach()) / len(groups)
    for name in NAMES:
        assert totals[name] == pytest.approx(float(expected.parts[name].detach()), rel=1e-4)
    for name, parameter in model.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-4, rtol=1e-3)


@torch.no_grad()
def test_turns_that_are_not_trained_on_change_no_part(model, fill, random_turn) -> None:
    quiet = loss_of(model, fill(["a", "b"], quiet={"b"}))
    alone = loss_of(model, fill(["a"]))
    for name in NAMES:
        torch.testing.assert_close(quiet.parts[name], alone.parts[name], atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_pitch_counts_on_voiced_frames_only_and_around_its_centre(model, fill) -> None:
    batch = fill(["a"])
    out = model.logits(batch)
    unvoiced = batch.prosody_target[:, 1] == 0
    before = conversational_loss(out, ConversationTargets.of(batch, 2)).parts["pitch"]
    batch.prosody_target[unvoiced, 0] = 99.0
    assert torch.equal(conversational_loss(out, ConversationTargets.of(batch, 2)).parts["pitch"], before)
    targets = ConversationTargets.of(batch, 2)
    right = targets.prosody - torch.tensor([LOG_F0_CENTRE, 0.0, LOG_ENERGY_CENTRE])
    parts = conversational_loss(dataclasses.replace(out, prosody=right), targets).parts
    assert float(parts["pitch"]) == 0 and float(parts["energy"]) == 0


@torch.no_grad()
def test_turns_of_unknown_prosody_weigh_nothing_there(model, random_turn) -> None:
    builder = model.new_rows()
    builder.add_spoken(random_turn("a")._replace(prosody=None))
    parts = loss_of(model, builder.build()).parts
    assert all(float(parts[n]) == 0 for n in ("pitch", "voicing", "energy", "text"))
    assert float(parts["codebook0"]) > 0


@torch.no_grad()
def test_generated_outputs_and_foreign_targets_are_refused(model, fill) -> None:
    batch = fill(["a"])
    targets = ConversationTargets.of(batch, 2)
    with pytest.raises(ValueError, match="generated, not teacher-forced"):
        conversational_loss(model(["hi"]), targets)
    with pytest.raises(ValueError, match="make the targets from the batch"):
        conversational_loss(model.logits(fill(["a", "b"])), targets)


@torch.no_grad()
@pytest.mark.parametrize("field", ["codebook0", "depth", "text", "prosody", "duration"])
def test_a_value_that_is_not_finite_shows_in_the_total(model, fill, field) -> None:
    # The training loop stops all ranks on it together; a rank that raised here would leave others waiting.
    batch = fill(["a"])
    out = model.logits(batch)
    getattr(out, field).select(0, 0).fill_(math.nan)
    assert not conversational_loss(out, ConversationTargets.of(batch, 2)).total.isfinite()


@pytest.mark.parametrize("field", [{"text": -1.0}, {"pitch": math.nan}, {"label_smoothing": 1.0}])
def test_weights_out_of_range_are_refused(field) -> None:
    with pytest.raises(ValueError, match=next(iter(field))):
        LossConfig(**field)


@pytest.mark.parametrize(("semantic", "share"), [(1, 0.0), (2, 1 / 31), (10, 9 / 31), (32, 1.0)])
def test_the_semantic_share_counts_the_depth_decoders_codebooks(semantic, share) -> None:
    assert share_of_codebooks(31, semantic) == pytest.approx(share)


@torch.no_grad()
def test_latents_are_compared_with_what_the_codes_add_up_to(tiny_model, random_turn) -> None:
    model = tiny_model(depth_inputs="sum", latent_dim=7)
    builder = model.new_rows()
    turn = random_turn("a", frames=6)
    builder.add_spoken(turn)
    batch = builder.build()
    vectors = torch.randn(5, 24, 7)
    out = model.logits(batch)
    parts = conversational_loss(out, ConversationTargets.of(batch, 2, vectors)).parts
    truth = torch.stack([sum(vectors[k, turn.codes[k, t]] for k in range(5)) for t in range(6)])
    for name in ("latent", "refined"):
        distance = (getattr(out, name) - truth).square().sum(dim=1).mean()
        torch.testing.assert_close(parts[name], distance)
    assert "latent" not in conversational_loss(out, ConversationTargets.of(batch, 2)).parts
