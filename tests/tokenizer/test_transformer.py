"""Attention to a window of the past: what it sees, and the same over chunks."""

import pytest
import torch

from csm.tokenizer.layers import streaming
from csm.tokenizer.transformer import TransformerLayer, WindowAttention


def attention(window: int) -> WindowAttention:
    torch.manual_seed(0)
    layer = WindowAttention(12, 3, window)
    layer.distance_bias.data.normal_()
    return layer


@torch.no_grad()
@pytest.mark.parametrize("window", [1, 4, 50])
def test_it_is_the_formula_over_the_window(window) -> None:
    layer, x = attention(window), torch.randn(2, 11, 12)
    q, k, v = layer.qkv(x).unflatten(-1, (3, 3, 4)).unbind(2)
    expected = torch.zeros(2, 11, 3, 4)
    for t in range(11):
        first = max(0, t - window + 1)
        scores = torch.einsum("bnh,bjnh->bnj", q[:, t], k[:, first : t + 1]) / 2
        weights = (scores + layer.distance_bias[:, : t + 1 - first].flip(1)).softmax(-1)
        expected[:, t] = torch.einsum("bnj,bjnh->bnh", weights, v[:, first : t + 1])
    torch.testing.assert_close(layer(x), layer.out(expected.flatten(2)), atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_a_step_is_seen_by_the_window_from_itself_on_and_by_no_other() -> None:
    layer, x = attention(5), torch.randn(1, 20, 12)
    changed = x.clone()
    changed[:, 8] += 1
    moved = (layer(x) - layer(changed)).abs().amax((0, 2)) > 0
    assert moved.nonzero().flatten().tolist() == [8, 9, 10, 11, 12]


@torch.no_grad()
@pytest.mark.parametrize("chunks", [[1] * 30, [7, 1, 22], [30], [4, 26]])
def test_a_stream_in_chunks_equals_the_whole_and_keeps_less_than_a_window(chunks) -> None:
    torch.manual_seed(0)
    layer, x = TransformerLayer(12, n_heads=3, window=6), torch.randn(2, 30, 12)
    layer.attention.distance_bias.data.normal_()
    whole = layer(x)
    with streaming(layer, 2):
        parts = [layer(part) for part in x.split(chunks, dim=1)]
        assert layer.attention.stream_state.keys.shape[2] == 5
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-6, rtol=1e-5)
    assert layer.attention.stream_state is None


@torch.no_grad()
def test_the_place_in_the_signal_changes_nothing() -> None:
    layer, x = attention(4), torch.randn(1, 9, 12)
    late = torch.cat([torch.randn(1, 100, 12), x], dim=1)
    torch.testing.assert_close(layer(late)[:, -6:], layer(x)[:, -6:], atol=1e-6, rtol=1e-5)
