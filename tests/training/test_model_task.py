"""The model's task: what the training loop is given, and that it teaches the model something."""

import pytest
import torch

from csm.training.loop import NonFiniteError, train
from csm.training.model_task import ModelTask
from csm.training.options import TrainingConfig


@pytest.fixture
def task(tiny_model, made_task) -> ModelTask:
    return made_task(tiny_model().train())


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


def test_validation_is_the_same_twice_and_changes_nothing(task) -> None:
    task.model.eval()
    before = {n: p.clone() for n, p in task.model.state_dict().items()}
    first, second = task.validate(1), task.validate(2)
    assert first == second and all(name.startswith("model/") for name in first)
    assert all(torch.equal(before[n], p) for n, p in task.model.state_dict().items())


def test_training_lowers_the_validation_loss_of_what_it_saw(task, tmp_path) -> None:
    task.validation_batch = task.train.in_order(10**6)
    task.model.eval()
    before = task.validate(0)
    config = TrainingConfig(
        steps=12,
        micro_batches=2,
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
    config = TrainingConfig(steps=3, micro_batches=2, warmup_steps=1)
    with pytest.raises(NonFiniteError, match=task.batch(1, 0).ids[0]):
        train(task, config, tmp_path / "run", run_description={"test": True}, device="cpu")
