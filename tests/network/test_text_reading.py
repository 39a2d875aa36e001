"""Text rows read all of the voice of their turn; row by row they read what a pack reads."""

import torch

from csm.network.cross_attention import CrossAttention
from csm.network.text_reading import TextReading
from csm.sequences.packed_batch import TextSpan


def test_text_reads_all_of_its_voice_and_nothing_of_other_turns() -> None:
    layer, rows = CrossAttention(16, 2, 1e4, gate=0.8), torch.randn(40, 16)
    spans = [TextSpan(25, 5, 0, 25), TextSpan(38, 2, 30, 8)]

    def read(rows: torch.Tensor) -> torch.Tensor:
        reading = TextReading.pack(spans, torch.cat([rows[:25], rows[30:38]]), [layer], 0.85)
        return layer(rows[reading.queries], reading, 0)

    before = read(rows)
    rows[3] += 1.0
    assert (read(rows) != before).any(dim=1).tolist() == [True] * 5 + [False] * 2


def test_a_step_reads_what_its_row_reads_in_a_pack() -> None:
    layer, rows = CrossAttention(16, 2, 1e4, gate=0.8), torch.randn(12, 16)
    reading = TextReading.pack([TextSpan(8, 4, 0, 8)], rows[:8], [layer], 0.85)
    whole = layer(rows[8:], reading, 0)
    for place in range(4):
        step = layer(rows[8 + place : 9 + place], reading.step(place), 0)
        torch.testing.assert_close(step[0], whole[place])
