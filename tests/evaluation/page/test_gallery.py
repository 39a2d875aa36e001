"""Players of clips: transcripts are marked and escaped, scores and reasons stand below."""

import dataclasses

import pytest

from csm.evaluation.core.clips import Clip, ClipSet
from csm.evaluation.core.metric import MetricInfo, Scores, failed, scored
from csm.evaluation.core.statistics import entry_of
from csm.evaluation.page.gallery import ConditionLook, Gallery, first_clips, marked
from tests.evaluation.core.test_comparison import report

LOOKS = {"recording": ConditionLook(title="Recording", tone="recording")}


def test_recognised_words_are_marked_and_escaped():
    pytest.importorskip("jiwer")
    shown = marked("hello there my friend", "hello their friend <b>")
    assert "their</mark>" in shown and "<del>my</del>" in shown and "<b>" not in shown
    assert "(nothing)" in marked("hello", "")


def entry(name, score):
    info = {"title": "T", "area": "a", "unit": "u", "direction": "higher", "evaluator": "e"}
    measured = Scores(info=MetricInfo(name=name, definition="d", **info), scores=[score])
    return entry_of(measured, group="lines", condition="recording")


def test_scores_stand_below_a_clip_and_what_is_lost_says_why(real_clips):
    clip = real_clips["JOE"][0]
    lost = Clip(id="lost", text="gone", reason="torn <file>")
    scores = (
        entry("wer", scored(clip, 0.25, detail="nothing <of> it")),
        entry("speaker_similarity", scored(clip, 0.8, detail="FAYE")),
        entry("distillmos", failed(lost, "silent")),
    )
    sets = [ClipSet(group="lines", condition="recording", clips=(clip, lost))]
    gallery = Gallery.of(dataclasses.replace(report("a", []), metrics=scores), sets, LOOKS)
    page = gallery.card(sets, 0, pictures=True)
    assert "WER 25 %" in page and "<of>" not in page and "nearest voice: FAYE" in page
    assert page.count("<audio ") == 1 and 'alt="Spectrogram' in page
    page = gallery.card(sets, 1)
    assert "<audio " not in page and "torn &lt;file&gt;" in page and "distillMOS failed" in page
    assert [len(one.clips) for one in first_clips(sets, 1)] == [1]
