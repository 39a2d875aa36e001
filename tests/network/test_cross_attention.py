"""What both readings share: gated attention at any two lengths, and each key with its neighbours."""

import pytest
import torch

from csm.network.cross_attention import CrossAttention, SourceEncoder, TextNow, key_rows, resampled_positions
from csm.network.text_reading import TextReading
from csm.network.voice_reading import VoiceReading
from csm.sequences.packed_batch import TextSpan, VoiceSpan


@pytest.fixture
def layer() -> CrossAttention:
    torch.manual_seed(0)
    return CrossAttention(16, 2, 1e4, gate=0.8)


@pytest.mark.parametrize("letters", [1, 2, 30])
@pytest.mark.parametrize("frames", [1, 2, 50])
def test_any_two_lengths_go_together(layer, letters, frames) -> None:
    rows = torch.randn(letters + frames, 16, requires_grad=True)
    for length in (1, frames, 3 * frames):
        span = VoiceSpan(letters, frames, 0, letters, length)
        voice = VoiceReading.pack([span], rows[:letters], [layer], window=3)
        out = layer(rows[voice.queries], voice, 0)
        assert out.shape == (frames, 16) and bool(out.isfinite().all()) and bool((out != 0).any(dim=1).all())
        (gradient,) = torch.autograd.grad(out.sum(), rows)
        assert bool(gradient.isfinite().all())
    text = TextReading.pack([TextSpan(0, letters, letters, frames)], rows[letters:], [layer], 0.85)
    out = layer(rows[text.queries], text, 0)
    assert out.shape == (letters, 16) and bool(out.isfinite().all())


def test_closed_gates_add_nothing() -> None:
    closed, rows = CrossAttention(16, 2, 1e4, gate=0.0), torch.randn(9, 16)
    reading = VoiceReading.pack([VoiceSpan(4, 5, 0, 4, 5)], rows[:4], [closed], window=3)
    assert not closed(rows[reading.queries], reading, 0).any()
    assert not TextNow(16, 0.0)(rows).any() and TextNow(16, 0.5)(rows).any()


def test_keys_are_stretched_evenly_over_a_length() -> None:
    torch.testing.assert_close(resampled_positions(4, 4), torch.arange(4.0))
    torch.testing.assert_close(resampled_positions(2, 4), torch.tensor([0.5, 2.5]))


def test_the_source_encoder_sees_four_neighbours_inside_the_turn() -> None:
    torch.manual_seed(0)
    encode = SourceEncoder(8)
    read, layout = key_rows([VoiceSpan(0, 1, 0, 12, 12), VoiceSpan(0, 1, 12, 9, 9)])
    assert read.tolist() == list(range(21)) and layout.cu_seqlens.tolist() == [0, 12, 21]
    rows = torch.randn(21, 8)
    before = encode(rows, layout)
    rows[10] += 1.0
    moved = (encode(rows, layout) != before).any(dim=1).nonzero()[:, 0]
    assert moved.tolist() == list(range(6, 12))
