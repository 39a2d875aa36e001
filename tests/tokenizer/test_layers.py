"""The causal blocks: the past alone, and the same over chunks."""

import pytest
import torch

from csm.tokenizer.layers import CausalDepthwiseConv, ConvNeXtBlock, Downsample, Upsample, streaming


@pytest.mark.parametrize("block", [CausalDepthwiseConv(8, 7), ConvNeXtBlock(8)], ids=["convolution", "block"])
@torch.no_grad()
def test_a_step_depends_on_the_present_and_the_six_steps_before(block):
    x = torch.randn(1, 30, 8, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    changed[:, 12] += 1
    moved = (block(x) - block(changed)).abs().amax((0, 2)) > 0
    assert moved.nonzero().flatten().tolist() == list(range(12, 19))


@torch.no_grad()
def test_the_convolution_equals_its_formula():
    conv = CausalDepthwiseConv(4, 3)
    x = torch.randn(2, 10, 4)
    padded = torch.nn.functional.pad(x, (0, 0, 2, 0))
    expected = sum(padded[:, k : k + 10] * conv.weight[:, 0, 0, k] for k in range(3)) + conv.bias
    torch.testing.assert_close(conv(x), expected)


@torch.no_grad()
def test_chunks_continue_one_signal_inside_streaming_and_start_at_silence_outside():
    block = torch.nn.Sequential(ConvNeXtBlock(8), Downsample(8, 12, 2), ConvNeXtBlock(12), Upsample(12, 8, 2))
    x = torch.randn(2, 20, 8)
    whole = block(x)
    with streaming(block, 2):
        parts = torch.cat([block(part) for part in x.split([2, 4, 14], dim=1)], dim=1)
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)
    torch.testing.assert_close(block(x), whole)


def test_streaming_ends_even_when_its_body_fails():
    block = ConvNeXtBlock(8)
    with pytest.raises(RuntimeError, match="body"), streaming(block, 1):
        raise RuntimeError("body")
    assert block.conv.stream_state is None
    with pytest.raises(ValueError, match="batch_size is 0"), streaming(block, 0):
        pass


def test_up_and_downsample_change_the_rate_and_the_width():
    x = torch.randn(2, 12, 8)
    assert Downsample(8, 10, 3)(x).shape == (2, 4, 10)
    assert Upsample(8, 10, 3)(x).shape == (2, 36, 10)
