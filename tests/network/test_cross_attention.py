"""Voice reads text and text reads voice at any two lengths, each its own turn only."""

import pytest
import torch

from csm.network.cross_attention import SLOTS, CrossAttention, SourceEncoder, key_at, pack_reading
from csm.sequences.frames import CrossSpan

CPU = torch.device("cpu")


def reading(spans, voice_reads=True, window=3):
    return pack_reading(spans, voice_reads=voice_reads, query_pace=1.0, window=window, device=CPU)


def read(layer, rows, packed):
    keys, values = layer.keys_values(rows[packed.keys], packed)
    return layer.read(rows[packed.queries], keys, values, packed)


@pytest.fixture
def layer() -> CrossAttention:
    torch.manual_seed(0)
    return CrossAttention(16, 2, 3, 1e4, gate=0.8)


@pytest.mark.parametrize("letters", [1, 2, 30])
@pytest.mark.parametrize("frames", [1, 2, 50])
def test_any_two_lengths_go_together(layer, letters, frames) -> None:
    rows = torch.randn(letters + frames, 16, requires_grad=True)
    for length in (1, frames, 3 * frames):
        out = read(layer, rows, reading([CrossSpan(letters, frames, 0, letters, length, True)]))
        assert out.shape == (frames, 16) and bool(out.isfinite().all()) and bool((out != 0).any(dim=1).all())
        (gradient,) = torch.autograd.grad(out.sum(), rows)
        assert bool(gradient.isfinite().all())
    out = read(
        layer, rows, reading([CrossSpan(0, letters, letters, frames, frames, False)], voice_reads=False)
    )
    assert out.shape == (letters, 16) and bool(out.isfinite().all())


def test_a_turn_reads_nothing_of_other_turns(layer) -> None:
    rows = torch.randn(40, 16)
    spans = [CrossSpan(5, 10, 0, 5, 9, True), CrossSpan(22, 18, 15, 7, 4, True)]
    both = read(layer, rows, reading(spans))
    torch.testing.assert_close(both[:10], read(layer, rows, reading(spans[:1])))
    torch.testing.assert_close(both[10:], read(layer, rows, reading(spans[1:])))


def test_a_voice_row_reads_a_window_around_its_place(layer) -> None:
    rows = torch.randn(40, 16)
    span = CrossSpan(20, 20, 0, 20, 20, True)
    before = read(layer, rows, reading([span]))
    rows[12] += 1.0  # letter 12, as many letters as frames
    moved = (read(layer, rows, reading([span])) != before).any(dim=1).nonzero()[:, 0]
    # Row i predicts frame i + 1 and stands there: letters i + 1 - 3 to i + 1 + 3.
    assert moved.tolist() == list(range(12 - 1 - 3, 12 - 1 + 3 + 1))


def test_a_voice_row_beyond_the_text_reads_its_end(layer) -> None:
    rows = torch.randn(38, 16)
    packed = reading([CrossSpan(8, 30, 0, 8, 12, True)])
    # Places 1..30, of which 15 and on are more than 3 past the last one, 11.
    assert packed.late is not None and packed.late.queries.tolist() == list(range(14, 30))
    out = read(layer, rows, packed)
    assert torch.equal(out[14], out[29]) and bool((out[14] != 0).any())
    # Place 14 sees the last resampled letter alone: there the two ways meet.
    torch.testing.assert_close(out[13], out[14])
    second = reading([CrossSpan(8, 30, 0, 8, 40, True), CrossSpan(8, 30, 0, 8, 12, True)])
    torch.testing.assert_close(read(layer, rows, second)[30:], out)


def test_the_end_is_the_one_that_interpolation_gives(layer) -> None:
    for letters, length in [(8, 12), (12, 8), (7, 7), (20, 3), (1, 4), (5, 1)]:
        rows = torch.randn(letters + 30, 16)
        packed = reading([CrossSpan(letters, 30, 0, letters, length, True)])
        _, values = layer.keys_values(rows[packed.keys], packed)
        end = torch.nn.functional.interpolate(
            values.flatten(1).T[None], size=length, mode="linear", align_corners=False
        )[0, :, -1]
        expected = torch.tanh(layer.gate) * layer.o_proj(end)
        torch.testing.assert_close(read(layer, rows, packed)[-1], expected, atol=1e-5, rtol=1e-5)


def test_text_reads_all_of_its_voice(layer) -> None:
    layer.window = None
    rows = torch.randn(30, 16)
    span = CrossSpan(25, 5, 0, 25, 25, False)
    before = read(layer, rows, reading([span], voice_reads=False))
    rows[3] += 1.0
    assert bool((read(layer, rows, reading([span], voice_reads=False)) != before).any(dim=1).all())


def test_a_direction_without_spans_is_none() -> None:
    assert reading([CrossSpan(0, 2, 2, 3, 3, True)], voice_reads=False) is None


def test_the_source_encoder_sees_four_neighbours_inside_the_turn() -> None:
    torch.manual_seed(0)
    encode = SourceEncoder(8)
    packed = reading([CrossSpan(0, 1, 0, 12, 12, True), CrossSpan(0, 1, 12, 9, 9, True)])
    rows = torch.randn(21, 8)
    before = encode(rows, packed)
    rows[10] += 1.0
    moved = (encode(rows, packed) != before).any(dim=1).nonzero()[:, 0]
    assert moved.tolist() == list(range(6, 12))


def test_a_frame_is_made_of_what_is_said_in_it() -> None:
    ends = torch.tensor([0.0, 0.5, 2.25, 4.0])
    packed = reading([CrossSpan(4, 5, 0, 4, 4, True, ends), CrossSpan(14, 5, 9, 3, 7, True)])
    assert packed.source is not None and packed.source.spread is not None
    shares = packed.source.spread(torch.eye(7)).view(7, SLOTS, 7)
    expected = torch.zeros(7, 7)
    expected[:4, :4] = torch.tensor([[0, 0.5, 0.5, 0], [0, 0, 1, 0], [0, 0, 0.25, 0.75], [0, 0, 0, 1]])
    expected[4:, 4:] = torch.eye(3)  # at an even pace: resampled later
    torch.testing.assert_close(shares.mean(dim=1), expected)
    # In the frame's order: the second letter ends after a half of the first frame.
    assert shares[0].argmax(dim=1).tolist() == [1, 1, 2, 2]
    assert packed.cu_seqlens_k.tolist() == [0, 4, 7] and packed.lengths.tolist() == [4, 7]
    assert packed.source.cu_seqlens.tolist() == [0, 4, 7]


def test_a_voice_row_reads_what_is_said_around_it(layer) -> None:
    letters, frames = 6, 20
    ends = torch.tensor([0.0, 1.0, 8.0, 9.5, 10.0, 20.0])
    packed = reading([CrossSpan(letters, frames, 0, letters, frames, True, ends)])
    assert packed.source is not None and packed.source.spread is not None
    rows, voice = torch.randn(letters, 16), torch.randn(frames, 16)

    def out(rows: torch.Tensor) -> torch.Tensor:
        keys, values = layer.keys_values(packed.source.spread(rows)[:, :16], packed)
        return layer.read(voice, keys, values, packed)

    before = out(rows)
    rows[3] += 1.0  # said in the first slots of frames 8 and 9
    moved = (out(rows) != before).any(dim=1).nonzero()[:, 0]
    assert moved.tolist() == list(range(8 - 1 - 3, 9 - 1 + 3 + 1))


@pytest.mark.parametrize(("length", "keys"), [(1, 1), (5, 5), (12, 4), (3, 11), (7, 1)])
def test_the_key_at_a_place_is_the_one_stretched_over_it(length, keys) -> None:
    places = torch.arange(2 * length + 3)
    at = key_at(places, length, keys)
    nearest = torch.nn.functional.interpolate(
        torch.arange(keys).float()[None, None], size=length, mode="nearest-exact"
    )[0, 0]
    assert at[:length].tolist() == nearest.long().tolist()
    assert bool((at[length:] == at[length - 1]).all())


def test_each_query_knows_the_key_of_its_own_turn_at_its_place() -> None:
    ends = torch.tensor([0.0, 2.0, 3.0])
    packed = reading([CrossSpan(3, 4, 0, 3, 3, True, ends), CrossSpan(11, 4, 7, 4, 4, True)])
    # Row i predicts frame i + 1; three frames of the first turn come before the four keys of the second.
    assert packed.now is not None and packed.now.tolist() == [1, 2, 2, 2, 4, 5, 6, 6]
