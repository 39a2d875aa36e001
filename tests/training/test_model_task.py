"""The model's task: what the training loop is given, and that it teaches the model something."""

import json
from pathlib import Path

import pytest
import torch

from csm.network.execution import ExecutionConfig, apply_execution
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


def losses(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line.pop("split") == "train"]


def test_a_run_whose_micro_batches_are_cut_has_the_same_losses_and_gradients(
    tiny_model, made_task, tmp_path
) -> None:
    """By DeepSpeed where it is installed."""
    config = TrainingConfig(steps=6, micro_batches=2, learning_rate=1e-3, warmup_steps=2, log_every=1)
    for pieces in (1, 2, 3):
        torch.manual_seed(0)
        model = tiny_model(latent_dim=6, depth_inputs="sum").train()
        task = made_task(model, latent_dim=6, max_rows=30)
        task.pieces = pieces
        assert task.most_pieces(1, 0) >= 3
        train(task, config, tmp_path / str(pieces), run_description={"test": True}, device="cpu")
    whole = losses(tmp_path / "1")
    assert len(whole) == 6 and "model/latent" in whole[0]
    for pieces in ("2", "3"):
        for ours, theirs in zip(losses(tmp_path / pieces), whole, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-6, abs=1e-6)


def test_a_model_that_computes_its_layers_again_is_not_cut(tiny_model, made_task) -> None:
    task = made_task(tiny_model(), max_rows=30)
    assert task.most_pieces(1, 0) > 1
    apply_execution(task.model, ExecutionConfig(checkpoint_layers=True), zero_stage=2)
    assert task.most_pieces(1, 0) == 1


def test_micro_batches_of_fixed_shapes_have_one_size_and_the_same_losses(
    tiny_model, made_task, tmp_path
) -> None:
    """By DeepSpeed where it is installed; batches are padded where they are made."""
    config = TrainingConfig(steps=6, micro_batches=2, learning_rate=1e-3, warmup_steps=2, log_every=1)
    sizes: dict[bool, set[tuple[int, ...]]] = {}
    for fixed in (False, True):
        torch.manual_seed(0)
        model = tiny_model(latent_dim=6, depth_inputs="sum").train()
        task = made_task(model, latent_dim=6, max_rows=30, fixed_shapes=fixed)
        made = [task.batch(step, number) for step in range(1, 7) for number in (0, 1)]
        sizes[fixed] = {(len(b.text), len(b.cu_seqlens), len(b.past.text), len(b.depth_rows)) for b in made}
        assert (task.most_pieces(1, 0) == 1) == fixed
        train(task, config, tmp_path / str(fixed), run_description={"test": True}, device="cpu")
    assert len(sizes[True]) == 1 < len(sizes[False])
    for ours, theirs in zip(losses(tmp_path / "True"), losses(tmp_path / "False"), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-5)
