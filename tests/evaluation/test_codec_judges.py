"""Every version is judged on every clip; a lost clip never helps."""

import numpy as np
import pytest

from csm.evaluation import codec_judges
from csm.evaluation.codec_judges import Panel, against_recording, voice_scores, words_heard
from csm.evaluation.codec_versions import Version
from csm.evaluation.judge import Clip


class Parrot:
    """A recogniser that hears the same words in everything."""

    evaluator = "parrot"

    def __init__(self, model=None):
        pass

    def transcribe(self, waveform, sample_rate):
        return "one two"


@pytest.fixture
def panel():
    noise = np.random.default_rng(0)
    clips = tuple(
        Clip(
            id=f"t{n}",
            conversation=f"c{n % 2}",
            text="one two three four",
            waveform=0.1 * noise.standard_normal(16000).astype(np.float32),
        )
        for n in range(4)
    )
    lost = (Clip(id="t0", conversation="c0", text=clips[0].text, reason="torn"), *clips[1:])
    versions = [
        Version(name="original", title="Original", clips=clips),
        Version(name="codec", title="Codec", clips=lost, kbits=1.0),
        Version(name="absent", title="Absent", clips=(), missing="not installed"),
    ]
    return Panel(versions=versions, asr=None, repeats=20, seed=0)


def test_words_are_counted_and_a_lost_clip_withholds_the_mean(panel, monkeypatch):
    pytest.importorskip("jiwer")
    monkeypatch.setattr(codec_judges.words, "WhisperRecogniser", Parrot)
    found = {(entry["name"], entry["condition"]): entry for entry in words_heard(panel)}
    assert len(found) == 4
    assert found["wer", "original"]["mean"] == pytest.approx(0.5)
    assert found["wer", "codec"]["mean"] is None and found["wer", "codec"]["failures"] == {"torn": 1}
    assert found["wer_capped", "codec"]["mean"] == pytest.approx((3 * 0.5 + 1) / 4)


def test_the_recording_against_itself_is_the_end_of_the_scale(panel):
    original, codec = against_recording(panel, "log_mel_l1")
    assert original["mean"] == pytest.approx(0.0) and original["n_ok"] == 4 and original["conversations"] == 2
    assert (codec["n_in"], codec["n_ok"], codec["mean"]) == (4, 3, None)


def test_a_voice_without_embedding_fails_with_the_reason_of_its_side(panel):
    clips, unit = panel.versions[0].clips, np.array([0.6, 0.8])
    scores = voice_scores(clips, [unit, unit, "silent", unit], [unit, "torn", unit, np.array([1.0, 0.0])])
    assert [score.value for score in scores] == [pytest.approx(1.0), None, None, pytest.approx(0.6)]
    assert [score.reason for score in scores[1:3]] == ["torn", "recording: silent"]
