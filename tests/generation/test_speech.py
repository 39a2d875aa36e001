"""The clock records when audio arrives, and a speech ended as the worst of its turns."""

import torch

from csm.generation.speech import StreamClock, joined_codes, speech_ending


def test_the_end_of_a_speech_is_the_worst_of_its_turns():
    assert speech_ending([]) == speech_ending(["end_code", "end_code"]) == "end_code"
    assert (
        speech_ending(["end_code", "stopped"]) == "stopped" and speech_ending(["limit", "stopped"]) == "limit"
    )


def timed(*chunks, sample_rate=4):
    times = iter(range(10))
    clock = StreamClock(lambda: float(next(times)))
    for chunk in chunks:
        clock.add(torch.tensor([chunk]))
    return clock.timing(sample_rate, len(chunks), "end_code")


def test_the_first_sound_is_in_the_chunk_with_the_first_sample_above_minus_40_db():
    timing = timed([0.0, 0.0], [0.001, -0.009], [0.0, -0.011], [1.0, 0.2, 0.2, 0.2])
    assert timing.first_audio_s == 1.0 and timing.first_sound_s == 3.0
    assert timing.generation_s == 5.0 and timing.audio_s == 2.5


def test_a_sound_at_the_edge_of_a_chunk_belongs_to_that_chunk():
    assert timed([0.0, 0.5], [1.0, 0.0]).first_sound_s == 1.0
    assert timed([0.0, 0.0], [1.0, 0.0]).first_sound_s == 2.0
    assert timed([0.5]).first_sound_s == 1.0


def test_silence_has_no_first_sound_and_no_audio_arrives_with_the_end():
    timing = timed([0.0, 0.0], [0.0])
    assert timing.first_sound_s is None and timing.first_audio_s == 1.0
    assert timed() == (1.0, None, 1.0, 0.0, 0, "end_code")


def test_a_clock_stops_once():
    times = iter([0.0, 1.0, 9.0])
    clock = StreamClock(lambda: next(times))
    clock.stop()
    clock.stop()
    assert clock.timing(4, 0, "end_code").generation_s == 1.0 and next(times) == 9.0


def test_codes_of_frames_stand_side_by_side_and_no_frames_keep_the_codebooks():
    frames = [torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])]
    assert joined_codes(frames, 3).tolist() == [[1, 4], [2, 5], [3, 6]]
    assert joined_codes([], 3).shape == (3, 0) and joined_codes([], 3).dtype == torch.int64
