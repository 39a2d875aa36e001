"""Every question has its name, claims that can be decided, and arms of the recipe that the command takes."""

import pytest

from csm.recipes.named import recipe
from csm.research.equal_sizes import parameters_of
from csm.research.named import QUESTIONS


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_question_states_what_counts_before_anything_is_measured(name) -> None:
    question = QUESTIONS[name]
    assert question.name == name and question.title.endswith("?") and question.claims
    assert all(claim.least > 0 and claim.text.endswith(".") for claim in question.claims)
    keys = [(claim.metric, claim.arm, claim.against) for claim in question.claims]
    assert len(set(keys)) == len(keys)


def test_the_recipe_has_what_every_question_varies() -> None:
    base = recipe("research")
    arms = {name: question.arms(base) for name, question in QUESTIONS.items()}
    assert {name: len(found) for name, found in arms.items()} == {
        "voice_semantics": 0,
        "memory": 4,
        "unified_vs_cascade": 3,
        "losses": 7,
    }
    assert all(run.training == base.training for found in arms.values() for run in found.values())
    sizes = [parameters_of(run.model) for run in arms["unified_vs_cascade"].values()]
    assert sum(sizes[1:]) == pytest.approx(sizes[0], rel=0.05)
