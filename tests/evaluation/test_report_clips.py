"""Clips on the page: transcripts with their errors, and scores with the reason of a failure."""

import pytest

from csm.evaluation.report_clips import ClipValues, clip_chips, marked
from csm.report.players import Chip

VALUES = ClipValues(
    values={
        ("wer", "generated", "a"): {"value": 0.25},
        ("speaker_similarity", "generated", "a"): {"value": 0.8125, "detail": "FAYE"},
        ("dnsmos", "generated", "a"): {"value": None, "reason": "too <short>"},
        ("wer", "generated", "b"): {"value": None},
    }
)


def test_recognised_words_are_marked_and_escaped():
    pytest.importorskip("jiwer")
    shown = marked("hello there my friend", "hello their friend <b>")
    assert '<mark title="text: there">their</mark>' in shown and "<del>my</del>" in shown
    assert "<b>" not in shown
    assert "(nothing)" in marked("hello", "")


def test_scores_of_a_clip_say_which_voice_is_nearest_and_why_a_score_is_missing():
    assert clip_chips(VALUES, "generated", "a") == [
        Chip(text="WER 25 %"),
        Chip(text="voice 0.812", title="nearest voice: FAYE"),
        Chip(text="DNSMOS failed", title="too <short>", bad=True),
    ]
    assert clip_chips(VALUES, "generated", "b") == [Chip(text="no WER", bad=True)]
    assert clip_chips(VALUES, "recording", "a") == []
