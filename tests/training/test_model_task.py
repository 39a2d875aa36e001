"""The model's task: what the training loop is given, and that it teaches the model something."""

import pytest
import torch

from csm.data.code_shards import EncodedTurn
from csm.data.dataset import ConversationDataset, DatasetConfig
from csm.data.manifest import Conversation, Corpus, Turn
from csm.losses import LossConfig
from csm.model import CSMModel
from csm.sequences.packed_batch import IGNORE
from csm.training.loop import NonFiniteError, train
from csm.training.model_task import ModelTask
from csm.training.options import TrainingConfig


def made(model: CSMModel, tmp_path, monkeypatch, latent_dim: int = 0) -> ModelTask:
    # Tiny tensors on two threads of a busy machine wait a hundred times as long as they compute.
    monkeypatch.setattr("csm.training.world.available_cores", lambda: 1)

    def turn(name: str, index: int) -> Turn:
        return Turn(
            id=f"{name}_{index}",
            conversation=name,
            index=index,
            speaker="A",
            text="abc",
            audio="a.wav",
            end=1.0,
        )

    splits = {f"c{i}": "train" for i in range(4)} | {"v": "validation"}
    conversations = tuple(
        Conversation(id=n, split=s, turns=tuple(turn(n, i) for i in range(5))) for n, s in splits.items()
    )
    corpus = Corpus(root=tmp_path, conversations=conversations, info={})
    g = torch.Generator().manual_seed(0)
    encoded = {
        t.id: EncodedTurn(
            t.id, torch.randint(0, 24, (5, 6), generator=g).short(), torch.rand(6, 3).half(), torch.zeros(1)
        )
        for t in corpus.turns()
    }
    config = DatasetConfig(rows_per_shard=120, max_rows=60, transcribe_share=0.4, depth_share=0.5)
    train_data, validation = (
        ConversationDataset(
            corpus,
            encoded,
            split,
            codec=model.codec,
            num_codebooks=5,
            end_code=24,
            config=config,
            shards=shards,
            seed=0,
        )
        for split, shards in (("train", 2), ("validation", 1))
    )
    vectors = torch.randn(5, 24, latent_dim, generator=g) if latent_dim else None
    return ModelTask(model, train_data, validation, LossConfig(), device=torch.device("cpu"), vectors=vectors)


@pytest.fixture
def task(tiny_model, tmp_path, monkeypatch) -> ModelTask:
    return made(tiny_model().train(), tmp_path, monkeypatch)


def test_the_loss_of_a_batch_is_reported_part_by_part(task) -> None:
    batch = task.batch(1, 0)
    assert task.batch_ids(batch) == batch.ids
    total, parts = task.loss("model", task.model, batch, 1)
    assert total.requires_grad and not any(v.requires_grad for v in parts.values())
    assert set(parts) == {
        "codebook0",
        "semantic",
        "acoustic",
        "text",
        "pitch",
        "voicing",
        "energy",
        "duration",
        "pace",
    }
    assert task.after_step(1) is None


@torch.no_grad()
def test_the_spread_is_of_the_validation_turns_latents(tiny_model, tmp_path, monkeypatch) -> None:
    model = tiny_model(depth_inputs="sum", latent_dim=6)
    task = made(model, tmp_path, monkeypatch, latent_dim=6)
    model.latent_refiner.out.weight.normal_()
    model.predicted_latent.set_variance_restoration(task.variance_restoration(model))
    batch = task._validation
    predicted = model(batch=batch, label_smoothing=0.0).refined
    follows = batch.code_target[:, 1] != IGNORE
    recorded = task.vectors[torch.arange(5), batch.code_target[follows]].sum(dim=1)
    lacks = (recorded.std(dim=0) / predicted.std(dim=0)).clamp(1, 3)
    torch.testing.assert_close(model.latent_gain, lacks, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(model.latent_mean, predicted.mean(dim=0), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_validation_turns_last_as_long_together_as_they_were(tiny_model, tmp_path, monkeypatch) -> None:
    model = tiny_model()
    task = made(model, tmp_path, monkeypatch)
    before = model.pace_head.pace.bias.clone()
    model.subtract_length_bias(*task.length_errors(model))
    assert not torch.equal(model.pace_head.pace.bias, before)
    assert task.length_errors(model) == pytest.approx((0.0, 0.0), abs=1e-5)
    # All turns last 6 frames.
    batch = task.validation.in_order(1000)
    last = (~batch.duration_target.isnan()).nonzero()[:, 0]
    said = model.duration_head(model.eval().hidden_rows(batch)[last])
    assert float(said.exp().mean()) == pytest.approx(6, abs=1e-4)
    # What says nothing is left alone.
    model.duration_head.weight.zero_()
    model.pace_head.pace.weight.zero_()
    assert task.length_errors(model) == (0.0, 0.0)


def test_validation_is_the_same_twice_and_changes_nothing(task) -> None:
    task.model.eval()
    before = {n: p.clone() for n, p in task.model.state_dict().items()}
    first, second = task.validate(1), task.validate(2)
    assert first == second and all(name.startswith("model/") for name in first)
    assert all(torch.equal(before[n], p) for n, p in task.model.state_dict().items())


def test_training_lowers_the_validation_loss_of_what_it_saw(task, tmp_path) -> None:
    task._validation = task.train.in_order(10**6)
    task.model.eval()
    before = task.validate(0)
    config = TrainingConfig(
        steps=12,
        shards=2,
        learning_rate=1e-2,
        warmup_steps=2,
        checkpoint_every=100,
        validate_every=100,
        log_every=4,
    )
    train(task, config, tmp_path / "run", run_description={"test": True}, device="cpu")
    task.model.eval()
    after = task.validate(12)
    assert after["model/loss"] < 0.8 * before["model/loss"]


def test_a_loss_that_is_not_finite_stops_the_training_and_names_the_batch(task, tmp_path) -> None:
    with torch.no_grad():
        task.model.codebook0_head.weight[0, 0] = torch.nan
    config = TrainingConfig(steps=3, shards=2, warmup_steps=1)
    with pytest.raises(NonFiniteError, match=task.batch(1, 0).ids[0]):
        train(task, config, tmp_path / "run", run_description={"test": True}, device="cpu")
