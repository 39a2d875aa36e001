"""What is trained: every arm at every seed, in folders of its own, for the steps that are asked for."""

import weakref
from dataclasses import replace

import pytest
import torch

from csm.model import CSMModel
from csm.recipes.named import recipe
from csm.recipes.steps import train_model
from csm.research.memory import Memory
from csm.research.trainings import planned, train_all, with_steps
from csm.training import engine


def test_every_arm_is_trained_at_every_seed_in_a_folder_of_its_own(tmp_path) -> None:
    trainings = planned(Memory(), recipe("research"), 3, tmp_path)
    assert len(trainings) == 12 and len({training.folder for training in trainings}) == 12
    assert [training.seed for training in trainings] == [0] * 4 + [1] * 4 + [2] * 4
    assert all(one.recipe.training.seed == one.seed and not one.recipe.training.samples for one in trainings)
    assert trainings[5].folder == tmp_path / "seed1" / "semantic"
    with pytest.raises(ValueError, match="seeds is 0: expected 1 or more"):
        planned(Memory(), recipe("research"), 0, tmp_path)


@pytest.mark.parametrize(("steps", "warmup"), [(1500, 100), (150, 10), (3, 1), (30_000, 100)])
def test_fewer_steps_have_a_shorter_warm_up(steps, warmup) -> None:
    training = with_steps(recipe("research"), steps).training
    assert (training.steps, training.warmup_steps) == (steps, warmup)


def test_arms_of_a_start_differ_in_the_slots_that_they_read(small, tmp_path) -> None:
    start = tmp_path / "start"
    torch.manual_seed(0)
    CSMModel(small.base.model).save_pretrained(start)
    base = with_steps(replace(small.base, model_start=str(start)), 1)
    trainings = planned(Memory(), base, 1, tmp_path / "runs")
    folders = train_all(trainings, small.codes, torch.device("cpu"))[0]
    kinds = {arm: CSMModel.from_pretrained(folder).config.memory_kinds for arm, folder in folders.items()}
    assert kinds == {
        "none": (),
        "semantic": ("semantic",),
        "style": ("style",),
        "both": ("semantic", "style"),
    }


def test_arms_that_come_out_equal_are_refused(small, tmp_path) -> None:
    one, other = planned(Memory(), with_steps(small.base, 1), 1, tmp_path)[:2]
    with pytest.raises(ValueError, match="hold the same weights: expected that none and semantic differ"):
        train_all([one, other._replace(recipe=one.recipe)], small.codes, torch.device("cpu"))


def test_no_model_stays_in_memory_after_its_training(small, tmp_path, monkeypatch) -> None:
    made: list[weakref.ref[CSMModel]] = []
    start_model = train_model.start_model

    def watched(run):
        model = start_model(run)
        made.append(weakref.ref(model))
        return model

    monkeypatch.setattr(train_model, "start_model", watched)
    monkeypatch.setattr(engine, "deepspeed_installed", lambda: True)  # whose hooks held the models
    trainings = planned(Memory(), with_steps(small.base, 1), 1, tmp_path)[:2]
    train_all(trainings, small.codes, torch.device("cpu"))
    assert [model() for model in made] == [None, None]
