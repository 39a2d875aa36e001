"""What is trained: every arm at every seed, in folders of its own, for the steps that are asked for."""

import pytest

from csm.recipes.named import recipe
from csm.research.memory import Memory
from csm.research.trainings import planned, with_steps


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
