"""Sizes: what follows from the fields of a config."""

import pytest

from csm.network.model_config import CSMConfig, TransformerShape, feed_forward_width


@pytest.mark.parametrize("width", [32, 192, 256, 768, 2048])
def test_the_feed_forward_is_as_large_as_a_plain_one(width) -> None:
    hidden = feed_forward_width(width)
    assert hidden % 64 == 0 and 0 <= 3 * hidden - 8 * width <= 192


def test_the_shapes_resolve_zeros_and_keep_what_is_given() -> None:
    config = CSMConfig(d_model=96, n_layers=3, n_heads=4, depth_d_model=64, depth_n_kv_heads=2, depth_d_ff=80)
    assert config.shapes == (TransformerShape(3, 96, 4, 4, 256), TransformerShape(2, 64, 4, 2, 80))


def test_one_kind_of_memory_may_be_read_or_none() -> None:
    for kinds in (("style",), ()):
        assert CSMConfig(memory_kinds=kinds).memory_kinds == kinds
    with pytest.raises(ValueError, match="memory_layers"):
        CSMConfig(memory_kinds=("style", "words"))
