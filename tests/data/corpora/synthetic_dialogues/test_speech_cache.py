"""Speech is kept by the content it was made from, whole or not at all."""

import numpy as np
import pytest
import soundfile

from csm.data.corpora.synthetic_dialogues.kokoro import SAMPLE_RATE
from csm.data.corpora.synthetic_dialogues.script import Utterance
from csm.data.corpora.synthetic_dialogues.speech_cache import SpeechCache, trimmed
from csm.data.corpora.synthetic_dialogues.voices import speakers


class Tone:
    """A teacher whose speech is a tone as long as its phonemes; it counts its calls."""

    calls = 0

    def speak(self, phonemes, speaker, speed):
        self.calls += 1
        return np.sin(np.arange(len(phonemes) * 2400) / 10).astype(np.float32) * 0.5


def utterance(name: str = "af_heart", speed: float = 1.0) -> Utterance:
    return Utterance("Hello.", speakers()[name], speed)


def test_speech_is_made_once(tmp_path):
    cache, teacher = SpeechCache(tmp_path), Tone()
    first = cache.speak(teacher, utterance(), "hello")
    assert cache.speak(teacher, utterance(), "hello") == first and teacher.calls == 1
    assert soundfile.info(first).samplerate == SAMPLE_RATE
    assert [path.suffix for path in tmp_path.rglob("*.*")] == [".flac"]


def test_another_voice_rate_or_text_is_another_file(tmp_path):
    cache = SpeechCache(tmp_path)
    paths = {
        cache.path(utterance(), "a"),
        cache.path(utterance(), "b"),
        cache.path(utterance("am_puck"), "a"),
        cache.path(utterance(speed=1.1), "a"),
    }
    assert len(paths) == 4


def test_edges_are_trimmed_to_their_margins():
    samples = np.concatenate([np.zeros(24_000), np.full(4_800, 0.5), np.zeros(24_000)]).astype(np.float32)
    assert len(trimmed(samples)) == 4_800 + round(0.24 * SAMPLE_RATE)


def test_silence_stays_as_it_is():
    assert len(trimmed(np.zeros(100, dtype=np.float32))) == 100


def test_an_interrupted_write_leaves_no_file(tmp_path):
    class Failing(Tone):
        def speak(self, phonemes, speaker, speed):
            raise ValueError("stopped")

    with pytest.raises(ValueError):
        SpeechCache(tmp_path).speak(Failing(), utterance(), "a")
    assert not list(tmp_path.rglob("*.flac"))
