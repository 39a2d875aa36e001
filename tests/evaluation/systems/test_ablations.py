"""A part that is off is off in a copy, and there altogether."""

import dataclasses

import pytest
import torch

from csm.evaluation.systems.ablations import without_part
from csm.generation.session import Session
from tests.evaluation.small_voice import small_talker


@pytest.fixture
def talker(tiny_model):
    return small_talker(tiny_model)


def spoken(model, turns):
    session = Session(model)
    for turn in turns:
        session.listen(turn)
    return torch.stack(list(session.speak("hello there", 0)), dim=1), session


@pytest.mark.parametrize("part", ["memory", "cross-attention"])
def test_a_closed_part_changes_a_copy_alone(talker, random_turn, part):
    turns = [random_turn(f"t{i}", frames=20) for i in range(20)]
    before, session = spoken(talker.model, turns)
    assert int(session.memory.turns) > 0
    off = without_part(talker, part)
    assert not torch.equal(spoken(off.model, turns)[0][:, :6], before[:, :6])
    assert torch.equal(spoken(talker.model, turns)[0], before)
    assert off.tokenizer is talker.tokenizer and off.voices is talker.voices


def test_a_model_whose_memory_is_off_speaks_like_one_without_past_turns(talker, random_turn):
    """Turns that left the context are nothing to it; those in the context stay the same."""
    off = without_part(talker, "memory").model
    turns = [random_turn(f"t{i}", frames=20) for i in range(20)]
    codes, session = spoken(off, turns)
    kept = [context.turn for context in session.turns[:-1]]
    fresh, other = spoken(off, kept)
    assert int(session.memory.turns) > int(other.memory.turns)
    assert torch.equal(codes, fresh)


def test_a_part_that_is_not_there_cannot_be_switched_off(talker, tiny_model):
    for part, field in (("memory", "memory_layers"), ("cross-attention", "cross_layers")):
        plain = dataclasses.replace(talker, model=tiny_model(**{field: ()}))
        with pytest.raises(ValueError, match=f"no layer with {part}"):
            without_part(plain, part)
