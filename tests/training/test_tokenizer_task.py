"""The tokenizer's task on a tiny corpus: it learns, its buffers change once a step, and frozen parts stay."""

import copy
import dataclasses

import pytest
import torch
import torch.distributed as dist

from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.training.adversarial_losses import adversarial_loss
from csm.tokenizer.training.discriminators import Discriminators
from csm.tokenizer.training.losses import TokenizerLossConfig
from csm.training import tokenizer_task
from csm.training.tokenizer_task import TokenizerTask, TrainedParts
from csm.training.tokenizer_trainer import TokenizerTrainer
from csm_kernels import rvq_search


@pytest.fixture
def make(small_config, datasets, monkeypatch):
    monkeypatch.setattr(
        tokenizer_task, "Discriminators", lambda: Discriminators(periods=(2,), windows=(128,), width=4)
    )

    def task(
        *, decoder_only=False, encoder_frozen=False, initialise=True, recover_phase=False, **loss
    ) -> TokenizerTask:
        torch.manual_seed(0)
        return TokenizerTask(
            ConversationalRVQ(dataclasses.replace(small_config, recover_phase=recover_phase)),
            *datasets,
            TokenizerLossConfig(**loss),
            TrainedParts(initialise=initialise, decoder_only=decoder_only, encoder_frozen=encoder_frozen),
            device=torch.device("cpu"),
        )

    return task


def optimise(task, steps) -> list[dict[str, float]]:
    """What the training loop does, in one process."""
    optimizers = {n: torch.optim.AdamW(m.parameters(), 3e-3) for n, m in task.modules.items()}
    history = []
    for step in range(1, steps + 1):
        seen = {}
        batches = [task.batch(step, micro_batch) for micro_batch in (0, 1)]
        for name, module in task.modules.items():
            torch.manual_seed(step)  # as the loop does: the text head has a dropout
            results = [task.loss(name, module, batch, step) for batch in batches]
            if results[0] is None:
                continue
            optimizers[name].zero_grad()
            torch.stack([loss for loss, _ in results]).mean().backward()
            optimizers[name].step()
            for part in results[0][1]:
                seen[part] = float(torch.stack([parts[part] for _, parts in results]).mean())
        seen |= {key: float(value) for key, value in task.after_step(step).items()}
        history.append(seen)
    return history


def mean(history, name):
    return sum(step[name] for step in history) / len(history)


def test_a_few_steps_lower_the_losses(make):
    task = make()
    before = task.validate(0)
    history = optimise(task, 25)
    assert mean(history[-5:], "mel") < 0.8 * mean(history[:5], "mel")
    assert mean(history[-5:], "text") < mean(history[:5], "text")
    after = task.validate(25)
    assert after["mel"] < before["mel"] and set(after) == {*("mel", "magnitude", "commitment", "text")}


def test_two_trainings_are_equal_bit_for_bit(make):
    one, two = make(), make()
    assert optimise(one, 3) == optimise(two, 3)
    pairs = zip(one.trainer.state_dict().items(), two.trainer.state_dict().values(), strict=True)
    assert not [name for (name, a), b in pairs if not torch.equal(a, b)]


def test_codebooks_start_at_the_data_and_change_in_after_step_alone(make):
    torch.manual_seed(0)
    task = make()
    stack = task.trainer.tokenizer.quantizer.semantic
    place, start = stack.codebooks.data_ptr(), stack.codebooks.clone()
    # Five k-means steps on real latents: every level says something of what the ones before left.
    latent, _ = task.trainer.tokenizer.encoder(task.batch(1, 0).audio[:, 0])
    rows = task.trainer.tokenizer.quantizer.semantic_in(latent).flatten(0, 1).detach()
    errors = [float(rows.square().mean()), *(float(e) for e in rvq_search(rows, start).commitment)]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 0.5 * errors[0]
    for micro_batch in range(2):
        task.loss("tokenizer", task.trainer, task.batch(1, micro_batch), 1)
    assert torch.equal(stack.codebooks, start)
    metrics = task.after_step(1)
    assert not torch.equal(stack.codebooks, start) and stack.codebooks.data_ptr() == place
    assert 1 <= metrics["semantic_perplexity"] <= 32 and 1 <= metrics["acoustic_perplexity"] <= 32


def test_both_stacks_share_one_all_reduce_a_step(make, monkeypatch):
    task = make()
    for micro_batch in range(2):
        task.loss("tokenizer", task.trainer, task.batch(1, micro_batch), 1)
    sent = []
    all_reduce = dist.all_reduce
    monkeypatch.setattr(dist, "all_reduce", lambda flat, **kw: (sent.append(flat), all_reduce(flat, **kw)))
    ours = not dist.is_initialized()  # DeepSpeed of an earlier test may have left a group of one
    if ours:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        task.after_step(1)
    finally:
        if ours:
            dist.destroy_process_group()
    assert len(sent) == 1 and sent[0].dtype == torch.int64


def test_decoder_only_leaves_encoder_and_codebooks_bit_equal(make):
    task = make(decoder_only=True, initialise=False)
    tokenizer = task.trainer.tokenizer
    before = copy.deepcopy(tokenizer.state_dict())
    optimise(task, 3)
    changed = {name for name, value in tokenizer.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(name.startswith("decoder.") for name in changed)
    assert not {n for n, _ in tokenizer.decoder.named_parameters() if f"decoder.{n}" not in changed} - {
        "condition.weight"
    }


def test_a_frozen_encoder_keeps_its_weights_while_codebooks_and_decoder_learn(make):
    task = make(encoder_frozen=True)
    tokenizer = task.trainer.tokenizer
    before = copy.deepcopy(tokenizer.state_dict())
    optimise(task, 3)
    changed = {name for name, value in tokenizer.state_dict().items() if not torch.equal(value, before[name])}
    kept = ("encoder.", "quantizer.acoustic_in.", "quantizer.semantic_in.", "quantizer.semantic_out.")
    assert not [name for name in changed if name.startswith(kept)]
    for part in ("decoder.", "quantizer.acoustic.codebooks", "quantizer.semantic.codebooks"):
        assert [name for name in changed if name.startswith(part)], part


def test_a_decoder_alone_is_not_trained_on_new_codebooks(make):
    with pytest.raises(ValueError, match="initialise"):
        make(decoder_only=True)


def test_discriminators_are_not_trained_before_their_step(make):
    task = make(adversarial=1.0, adversarial_start=2)
    assert list(task.modules) == ["tokenizer", "discriminator"]
    discriminators = copy.deepcopy(task.modules["discriminator"].state_dict())
    history = optimise(task, 3)
    assert "adversarial" not in history[0] and "hinge" not in history[0]
    assert {"adversarial", "feature_matching", "hinge"} <= set(history[1])
    state = task.modules["discriminator"].state_dict()
    assert not any(
        torch.equal(state[name], value) for name, value in discriminators.items() if value.ndim > 1
    )


@pytest.mark.parametrize("recover_phase", [False, True])
def test_a_decoder_alone_is_trained_against_discriminators_at_their_rate(make, recover_phase):
    """Waveforms or, where phases are recovered, magnitudes: a slice that the decoder has a gradient of."""
    task = make(
        recover_phase=recover_phase,
        decoder_only=True,
        initialise=False,
        adversarial=1.0,
        discriminator_rate=1.5,
    )
    assert task.learning_rate_scales["discriminator"] == 1.5
    history = optimise(task, 2)
    assert all(0 < step["hinge"] < 10 and 0 < step["feature_matching"] < 10 for step in history)
    outputs = task.trainer(task.batch(1, 0), task.weights, task.train.config.slice_frames)
    assert outputs["output"].shape == outputs["target"].shape
    if recover_phase:
        config = task.trainer.tokenizer.config
        rows = config.hops_per_frame * task.train.config.slice_frames
        assert outputs["output"].shape[1:] == (rows, config.bins)
    maps = task.modules["discriminator"](outputs["output"])
    (gradient,) = torch.autograd.grad(adversarial_loss(maps), outputs["balanced"])
    assert gradient.any()


def test_magnitudes_of_a_slice_are_those_of_the_decoder_there(make):
    task = make(recover_phase=True)
    task.trainer.eval()
    batch = task.batch(1, 0)
    with torch.no_grad():
        outputs = task.trainer(batch, task.weights, 2)
        spectrum = task.trainer.tokenizer.encoder.spectrum
        _, features = task.trainer.tokenizer.encoder(batch.audio[:, 0])
        whole = spectrum.compressed(features)
    hops = task.trainer.tokenizer.config.hops_per_frame
    for item, first in enumerate(batch.slice_start.tolist()):
        part = whole[item, hops * first : hops * (first + 2)]
        inside = torch.arange(hops * first, hops * first + len(part)) * spectrum.hop < batch.lengths[item]
        torch.testing.assert_close(outputs["target"][item, : len(part)], part * inside.unsqueeze(1))


def test_every_part_of_the_loss_reaches_its_head(make):
    task = make(quantizer_dropout=0.0, bypass=0.0, condition_dropout=0.0)
    optimise(task, 1)  # what starts at zero passes no gradient on before it has moved
    loss, parts = task.loss("tokenizer", task.trainer, task.batch(1, 0), 1)
    assert set(parts) == {
        *("mel", "magnitude", "commitment", "isotropy", "text", "speaker", "reversal", "emotion")
    }
    assert not any(part.requires_grad for part in parts.values())
    loss.backward()
    without = [name for name, p in task.trainer.named_parameters() if p.grad is None or not p.grad.any()]
    # Exactly zero whatever the data: a bias that softmax over time cancels.
    assert set(without) <= {f"tokenizer.{who}_encoder.attention.bias" for who in ("speaker", "emotion")}


def test_what_lies_beyond_an_utterance_counts_in_no_loss(make):
    task = make()
    trainer = task.trainer.eval()
    batch = task.validation.in_order(0, 4)
    more = dataclasses.replace(batch, audio=torch.nn.functional.pad(batch.audio, (0, 6400)))
    with torch.no_grad():
        one, two = (trainer(b, task.weights, 4) for b in (batch, more))
    for name in ("mel", "magnitude", "commitment", "isotropy", "text", "speaker", "emotion"):
        torch.testing.assert_close(one[name], two[name], atol=1e-5, rtol=1e-5)


def test_quantizer_dropout_draws_one_to_all_codebooks_in_training_alone(small_config):
    trainer = TokenizerTrainer(ConversationalRVQ(small_config), 2)
    draws = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0))
    levels = trainer._draw_levels(draws, TokenizerLossConfig(quantizer_dropout=0.5))
    assert levels.unique().tolist() == [1, 2, 3, 4, 5, 6]
    assert abs(float((levels < 6).float().mean()) - 0.5) < 0.03
    assert trainer.eval()._draw_levels(draws, TokenizerLossConfig()).unique().tolist() == [6]
