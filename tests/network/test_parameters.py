"""The table of parameter groups: every parameter has one, and what csm-1b has is what its presets have."""

import pytest

from csm.network.parameters import (
    ADDED,
    GROUPS,
    group_of,
    is_added,
    is_gate,
    is_in,
    public_name,
)
from tests.parameter_counts import parameter_counts


@pytest.mark.parametrize("changes", [{}, {"depth_inputs": "sum", "latent_dim": 8}])
def test_every_parameter_and_buffer_is_in_one_group(tiny_model, changes) -> None:
    model = tiny_model(**changes)
    for name in model.state_dict():
        found = [group for group in GROUPS if name == group.module or name.startswith(f"{group.module}.")]
        assert len(found) == 1 and group_of(name) is found[0], name
    counts = parameter_counts(model)
    assert sum(counts) == sum(p.numel() for p in model.parameters()) and counts.added > 0
    with pytest.raises(ValueError, match="parameter backbone.new.weight is in no group"):
        group_of("backbone.new.weight")


def test_added_parts_are_those_without_a_public_name(tiny_model) -> None:
    names = list(tiny_model().state_dict())
    assert all((group.public is None) == (group.group == ADDED) for group in GROUPS)
    public = [name for name in names if not is_added(name)]
    for layout in ("sesame", "transformers"):
        assert len({public_name(name, layout) for name in public}) == len(public)
    assert all(is_added(name) for name in names if is_gate(name))


def test_a_choice_of_groups_names_parts_or_gates_or_all() -> None:
    gate, layer = "backbone.voice_reads.1.gate", "backbone.blocks.0.attention.q_proj.weight"
    assert is_in(gate, ("gates",)) and is_in(gate, ("added",)) and not is_in(gate, ("backbone",))
    assert is_in(layer, ("backbone",)) and not is_in(layer, ("added", "gates")) and is_in(layer, ("all",))
