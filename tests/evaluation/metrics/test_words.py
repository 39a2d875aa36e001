"""Error rates: arithmetic with a made-up recogniser, recognition with the real one."""

import numpy as np
import pytest

from csm.evaluation.core.clips import Clip, as_clips
from csm.evaluation.core.evaluators import EvaluatorUnavailable
from csm.evaluation.core.statistics import pooled_mean
from csm.evaluation.metrics.words import (
    WhisperRecogniser,
    error_counts,
    error_scores,
    intelligibility_infos,
    transcribe_all,
)

TONE = np.sin(np.arange(8000) / 10).astype(np.float32)


class Parrot:
    """Returns the given transcripts one after the other."""

    evaluator = "parrot"

    def __init__(self, *answers):
        self.answers = list(answers)

    def transcribe(self, waveform, sample_rate):
        return self.answers.pop(0)


def word_error_rate(recogniser, items):
    """Errors / words over all clips, None if one failed, and the score of each."""
    clips = as_clips(items)
    scores = error_scores(clips, transcribe_all(recogniser, clips))
    return pooled_mean(scores, None), scores


def test_errors_are_pooled_over_words():
    rate, scores = word_error_rate(
        Parrot("one two three", "no"), [(TONE, 16000, "one two three"), (TONE, 16000, "yes")]
    )
    assert rate == pytest.approx(0.25)
    assert [score.value for score in scores] == [0.0, 1.0]
    assert scores[1].detail == "no"


def test_substitutions_deletions_and_insertions_count():
    assert error_counts("a b c d", "a x c d e") == (2, 4)
    assert error_counts("a b", "") == (2, 2)


def test_the_rate_by_whispers_normaliser_is_that_of_published_figures():
    pairs = [
        (
            "Mr. Park's 2nd TV cost twenty dollars, um, didn't it?",
            "mister park is 2nd tv cost $20 did not it",
        ),
        ("The grey colour", "the gray color"),
        ("[laughs] one two", "one three"),
    ]
    clips = [Clip(id=str(n), text=text, waveform=TONE) for n, (text, _) in enumerate(pairs)]
    transcripts = transcribe_all(Parrot(*(heard for _, heard in pairs)), clips)
    plain, whisper = error_scores(clips, transcripts), error_scores(clips, transcripts, whisper=True)
    assert [score.value for score in whisper] == [0.0, 0.0, 1.0]  # "12" and "13" are one word
    assert all(score.value > 0 for score in plain)
    assert [score.weight for score in whisper] == [10.0, 3.0, 1.0]
    assert "whisper-normalizer 0." in intelligibility_infos("asr")["wer_whisper"].definition


def test_a_missing_output_is_an_error_of_all_its_words_and_never_helps():
    clips = [
        Clip(id="good", conversation="1", text="one two", waveform=TONE),
        Clip(id="gone", conversation="2", text="three four", reason="file missing"),
    ]
    transcripts = transcribe_all(Parrot("one two"), clips)
    plain, capped = error_scores(clips, transcripts), error_scores(clips, transcripts, capped=True)
    assert plain[1].value is None and plain[1].reason == "file missing"
    assert word_error_rate(Parrot("one two"), clips)[0] is None
    assert pooled_mean(capped, 1.0) == pytest.approx(0.5)


def test_a_recogniser_that_loops_is_limited_only_in_the_capped_rate():
    clips = [Clip(id="loop", text="yes", waveform=TONE)]
    transcripts = transcribe_all(Parrot("no no no no"), clips)
    assert error_scores(clips, transcripts)[0].value == 4.0
    assert error_scores(clips, transcripts, capped=True)[0].value == 1.0


def test_a_recogniser_that_raises_is_a_counted_failure():
    class Broken:
        evaluator = "broken"

        def transcribe(self, waveform, sample_rate):
            raise RuntimeError("out of order")

    score = word_error_rate(Broken(), [(TONE, 16000, "yes")])[1][0]
    assert score.value is None and score.reason == "RuntimeError: out of order"


def test_texts_without_words_are_left_out():
    assert word_error_rate(Parrot("a", "b"), [(TONE, 16000, "..."), (TONE, 16000, "b")])[0] == 0.0


def test_whisper_reads_real_clips_and_the_same_twice(real_clips):
    pytest.importorskip("faster_whisper")
    recogniser = WhisperRecogniser()
    rate, scores = word_error_rate(recogniser, real_clips["JOE"][:4])
    assert rate is not None and rate < 0.35
    assert word_error_rate(recogniser, real_clips["JOE"][:1])[1][0] == scores[0]
    assert "1a5afae06a4d" in recogniser.evaluator


def test_an_unknown_model_says_what_to_do(tmp_path):
    pytest.importorskip("faster_whisper")
    with pytest.raises(EvaluatorUnavailable, match="give a model name"):
        WhisperRecogniser(str(tmp_path))
