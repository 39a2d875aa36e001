"""The wait is measured where the audio comes out, to the chunk in which something can be heard."""

import torch

from csm.evaluation.subjects.voice_timing import timed


def stream(*chunks):
    times = iter(range(1, 10))
    return timed((torch.tensor([chunk]) for chunk in chunks), 4, lambda: float(next(times)))


def test_the_first_sound_is_in_the_chunk_with_the_first_sample_above_minus_40_db():
    waveform, timing = stream([0.0, 0.0], [0.001, -0.009], [0.0, -0.011], [1.0, 0.2, 0.2, 0.2])
    assert waveform.shape == (1, 10)
    assert timing.first_chunk_s == 1.0 and timing.first_sound_s == 3.0
    assert timing.generation_s == 4.0 and timing.audio_s == 2.5


def test_a_sound_at_the_edge_of_a_chunk_belongs_to_that_chunk():
    assert stream([0.0, 0.5], [1.0, 0.0])[1].first_sound_s == 1.0
    assert stream([0.0, 0.0], [1.0, 0.0])[1].first_sound_s == 2.0
    assert stream([0.5])[1].first_sound_s == 1.0


def test_a_silent_line_has_no_first_sound():
    timing = stream([0.0, 0.0], [0.0])[1]
    assert timing.first_sound_s is None and timing.first_chunk_s == 1.0
