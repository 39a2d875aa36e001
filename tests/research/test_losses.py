"""Without a group of its parts the loss has these weights at 0, and every part is measured of every arm."""

from dataclasses import replace

import pytest
import torch

from csm.model import CSMModel
from csm.research.losses import WHOLE, Losses
from csm.research.nats import PARTS


@pytest.fixture
def models(small, tmp_path):
    """Returns a function that writes models of random weights and returns their folders."""

    def make(arms):
        folders = {}
        for number, (arm, recipe) in enumerate(arms.items()):
            torch.manual_seed(number)
            folders[arm] = tmp_path / str(number)
            CSMModel(recipe.model).save_pretrained(folders[arm])
        return folders

    return make


def test_an_arm_leaves_out_what_it_names_and_nothing_else(small) -> None:
    arms = Losses().arms(small.base)
    assert set(arms) == {
        WHOLE,
        *(f"without {n}" for n in ("semantic", "acoustic", "prosody", "duration", "text")),
    }
    whole = vars(small.base.loss)
    changed = {
        arm: {n for n, v in vars(recipe.loss).items() if v != whole[n]} for arm, recipe in arms.items()
    }
    assert changed["without prosody"] == {"pitch", "voicing", "energy"} and changed[WHOLE] == set()
    assert changed["without text"] == {"text", "letters"} and changed["without duration"] == {
        "duration",
        "pace",
    }
    assert all(replace(recipe, loss=small.base.loss) == small.base for recipe in arms.values())
    latent = replace(small.base.model, latent_dim=16, depth_inputs="sum")
    assert "without latent" in Losses().arms(replace(small.base, model=latent))


def test_every_part_is_measured_on_turns_that_are_spoken_and_heard(small, models) -> None:
    arms = dict(list(Losses().arms(small.base).items())[:2])
    measured = list(Losses().measure(small.material(), models(arms)))
    names = {arm: [one.scores.info.name for one in measured if one.arm == arm] for arm in arms}
    expected = set(PARTS) - {"latent", "refined"}
    assert all(len(found) == len(expected) and set(found) == expected for found in names.values())
    of_code0 = [one.scores.scores for one in measured if one.scores.info.name == "codebook0"]
    # Random weights are near the entropy of 32 codes and the end.
    assert all(2.5 < score.value < 5.5 for scores in of_code0 for score in scores)
    assert len({score.conversation for score in of_code0[0]}) == 4
