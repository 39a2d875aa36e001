"""Speech of a channel: silero-vad's own definition without padding, in blocks of any size."""

import random

import numpy as np
import pytest
import torch

from csm.audio.files import read_audio
from csm.audio.voice_activity import RATE, WINDOW, SpeechProbabilities, load_detector, speech_intervals

silero_vad = pytest.importorskip("silero_vad")


class Given:
    """A detector that returns given probabilities, one a window."""

    def __init__(self, probabilities: list[float]) -> None:
        self.probabilities, self.place = probabilities, 0

    def reset_states(self) -> None:
        self.place = 0

    def __call__(self, window: torch.Tensor, rate: int) -> torch.Tensor:
        self.place += 1
        return torch.tensor(self.probabilities[self.place - 1])


@pytest.mark.parametrize("seed", range(60))
def test_intervals_are_those_of_the_package_without_padding(seed: int) -> None:
    draw = random.Random(seed)
    probabilities: list[float] = []
    while len(probabilities) < 200:
        probabilities += [draw.choice([0.0, 0.3, 0.36, 0.49, 0.5, 0.9])] * draw.randrange(1, 6)
    samples = len(probabilities) * WINDOW - draw.randrange(WINDOW)
    found = silero_vad.get_speech_timestamps(
        torch.zeros(samples),
        Given(probabilities),
        sampling_rate=RATE,
        speech_pad_ms=0,
        min_silence_duration_ms=100,
        min_speech_duration_ms=100,
    )
    assert speech_intervals(probabilities, samples) == [(p["start"] / RATE, p["end"] / RATE) for p in found]


def test_speech_of_a_recording_is_the_same_in_blocks_of_any_size(excerpt) -> None:
    turn = next(t for t in excerpt.turns("train") if t.duration > 2)
    rate = 11_025
    clip = read_audio(excerpt.root / turn.audio, sample_rate=rate)[0].numpy()
    quiet = np.zeros(rate, np.float32)
    waveform = torch.from_numpy(np.concatenate([quiet, clip, quiet]))
    detector, found = load_detector(), []
    for size in (len(waveform), 1000, 44_101):
        speech = SpeechProbabilities(detector, rate)
        for block in waveform.split(size):
            speech.push(block)
        speech.finish()
        found.append(speech.intervals())
        assert speech.samples == -(-len(waveform) * RATE // rate)
        assert len(speech.values) == len(speech.powers) == -(-speech.samples // WINDOW)
    assert found[0] and found[0] == found[1] == found[2]
    assert 0.9 < found[0][0][0] and found[0][-1][1] < 1.1 + turn.duration
