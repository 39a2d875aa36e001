"""Voice rows read the text around their own frame, each its own turn only; steps and packs agree."""

import pytest
import torch

from csm.network.cross_attention import CrossAttention
from csm.network.text_frame_alignment import TextFrameAlignment
from csm.network.voice_reading import VoiceReading, key_at
from csm.sequences.packed_batch import VoiceSpan

WINDOW = 3


@pytest.fixture
def layer() -> CrossAttention:
    torch.manual_seed(0)
    return CrossAttention(16, 2, 1e4, gate=0.8)


def pack(layer, rows, spans) -> VoiceReading:
    """The reading of these spans, whose frames are their letters."""
    letters = torch.cat([torch.arange(s.first_key, s.first_key + s.num_keys) for s in spans])
    return VoiceReading.pack(spans, rows[letters], [layer], WINDOW)


def read(layer, rows, spans) -> torch.Tensor:
    reading = pack(layer, rows, spans)
    return layer(rows[reading.queries], reading, 0)


def test_a_turn_reads_nothing_of_other_turns(layer) -> None:
    rows = torch.randn(40, 16)
    spans = [VoiceSpan(5, 10, 0, 5, 9), VoiceSpan(22, 18, 15, 7, 4)]
    both = read(layer, rows, spans)
    torch.testing.assert_close(both[:10], read(layer, rows, spans[:1]))
    torch.testing.assert_close(both[10:], read(layer, rows, spans[1:]))


def test_a_voice_row_reads_a_window_around_its_place(layer) -> None:
    rows = torch.randn(40, 16)
    span = VoiceSpan(20, 20, 0, 20, 20)
    before = read(layer, rows, [span])
    rows[12] += 1.0  # letter 12, as many letters as frames
    moved = (read(layer, rows, [span]) != before).any(dim=1).nonzero()[:, 0]
    # Row i predicts frame i + 1 and stands there: letters i + 1 - 3 to i + 1 + 3.
    assert moved.tolist() == list(range(12 - 1 - 3, 12 - 1 + 3 + 1))


def test_a_voice_row_beyond_the_text_reads_its_end(layer) -> None:
    rows, span = torch.randn(38, 16), VoiceSpan(8, 30, 0, 8, 12)
    beyond = pack(layer, rows, [span]).beyond
    # Places 1..30, of which 15 and on are more than 3 past the last one, 11.
    assert beyond is not None and beyond.queries.tolist() == list(range(14, 30))
    out = read(layer, rows, [span])
    assert torch.equal(out[14], out[29]) and bool((out[14] != 0).any())
    # Place 14 sees the last resampled letter alone: there the two ways meet.
    torch.testing.assert_close(out[13], out[14])
    torch.testing.assert_close(read(layer, rows, [VoiceSpan(8, 30, 0, 8, 40), span])[30:], out)


def test_the_end_is_the_one_that_interpolation_gives(layer) -> None:
    for letters, length in [(8, 12), (12, 8), (7, 7), (20, 3), (1, 4), (5, 1)]:
        rows, span = torch.randn(letters + 30, 16), VoiceSpan(letters, 30, 0, letters, length)
        values = pack(layer, rows, [span]).values[0]
        end = torch.nn.functional.interpolate(
            values.flatten(1).T[None], size=length, mode="linear", align_corners=False
        )[0, :, -1]
        expected = torch.tanh(layer.gate) * layer.o_proj(end)
        torch.testing.assert_close(read(layer, rows, [span])[-1], expected, atol=1e-5, rtol=1e-5)


def test_a_voice_row_reads_what_is_said_around_it(layer) -> None:
    letters, frames = 6, 20
    ends = torch.tensor([0.0, 1.0, 8.0, 9.5, 10.0, 20.0])
    span = VoiceSpan(letters, frames, 0, letters, frames, ends)
    rows, voice = torch.randn(letters, 16), torch.randn(frames, 16)

    def out(rows: torch.Tensor) -> torch.Tensor:
        text = TextFrameAlignment.pack([span])(rows)[:, :16]
        return layer(voice, VoiceReading.pack([span], text, [layer], WINDOW), 0)

    before = out(rows)
    rows[3] += 1.0  # said in the first sub-frames of frames 8 and 9
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


def test_each_query_has_the_key_of_its_own_turn_at_its_place(layer) -> None:
    ends = torch.tensor([0.0, 2.0, 3.0])
    spans = [VoiceSpan(3, 4, 0, 3, 3, ends), VoiceSpan(11, 4, 7, 4, 4)]
    reading = VoiceReading.pack(spans, torch.randn(7, 16), [layer], WINDOW)
    # Row i predicts frame i + 1; three frames of the first turn come before the four keys of the second.
    assert reading.key_of_query.tolist() == [1, 2, 2, 2, 4, 5, 6, 6]
    assert reading.cu_seqlens_k.tolist() == [0, 3, 7] and reading.lengths.tolist() == [3, 4]


def test_row_by_row_and_several_turns_together_read_what_a_pack_reads(layer) -> None:
    """Far beyond the end of the text too."""
    rows = torch.randn(40, 16)
    spans = [VoiceSpan(5, 15, 0, 5, 9), VoiceSpan(27, 13, 20, 7, 4)]
    whole = [read(layer, rows, [span]) for span in spans]
    alone = [pack(layer, rows, [span]) for span in spans]
    for row in range(13):
        steps = [reading.step(row + 1) for reading in alone]
        voice = torch.stack([rows[span.first_query + row] for span in spans])
        together = VoiceReading.concat(steps)
        expected = torch.stack([out[row] for out in whole])
        torch.testing.assert_close(layer(voice, together, 0), expected, atol=1e-5, rtol=1e-5)
        for index, step in enumerate(steps):
            torch.testing.assert_close(layer(voice[index : index + 1], step, 0)[0], expected[index])
        keys = [reading.key_of_query[row] for reading in alone]
        assert together.key_of_query.tolist() == [int(keys[0]), int(keys[1]) + 5]
