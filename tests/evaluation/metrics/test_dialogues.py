"""Timings of dialogues: real ones are compared, clips laid end to end are not."""

import dataclasses

import numpy as np
import pytest

from csm.evaluation.core.clips import Clip, ClipSet, ClipSets
from csm.evaluation.core.evaluators import NotMeasurable
from csm.evaluation.metrics import dialogues
from csm.evaluation.metrics.dialogues import LAID_END_TO_END, DialogueTiming, distance_infos
from csm.evaluation.metrics.turn_taking import turn_taking
from tests.evaluation.small_voice import measured


class Loudness:
    """Stands for a voice activity detector: speech is where samples are not 0."""

    evaluator = "loudness"

    def intervals(self, waveform, sample_rate):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], waveform != 0, [0]]).astype(int)))
        return [(a / sample_rate, b / sample_rate) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def dialogue(gap, shared):
    channels = np.zeros((2, 40000), np.float32)
    channels[0, :8000] = channels[0, 12000:16000] = 1.0
    channels[1, 16000 + gap : 30000 + gap] = 1.0
    clip = Clip(id="d", conversation="d", waveform=channels, facts={"shared_recording": shared})
    return (clip, dataclasses.replace(clip, id="e", conversation="e"))


def sets(shared):
    conditions = {"recording": dialogue(800, shared), "generated": dialogue(3200, shared)}
    return ClipSets(
        sets=tuple(
            ClipSet(group="dialogues", condition=name, clips=clips, kind="dialogues")
            for name, clips in conditions.items()
        )
    )


@pytest.fixture
def metric(monkeypatch):
    monkeypatch.setattr(dialogues, "VoiceActivity", Loudness)
    return DialogueTiming()


def test_a_shared_recording_has_offsets_and_their_distance(metric):
    found = measured(metric, sets(shared=True))
    assert found["fto", "dialogues", "recording"].mean == pytest.approx(50.0)
    assert found["gap", "dialogues", "generated"].mean == pytest.approx(200.0)
    assert found["fto_wasserstein_1", "dialogues", "generated"].mean == pytest.approx(150.0)
    assert metric.missing == []


def test_clips_laid_end_to_end_have_pauses_but_no_offsets(metric):
    found = measured(metric, sets(shared=False))
    assert {name for name, _, _ in found} == {"pause", "ipu", "pause_wasserstein_1", "ipu_wasserstein_1"}
    assert found["pause", "dialogues", "recording"].mean == pytest.approx(250.0)
    assert metric.missing == [LAID_END_TO_END]
    assert set(metric.details["turn_taking"]) == {"recording", "generated"}


def test_without_dialogues_nothing_is_measured(metric):
    lines = ClipSet(group="lines", condition="recording", clips=(Clip(id="a"),))
    with pytest.raises(NotMeasurable, match="no dialogues"):
        measured(metric, ClipSets(sets=(lines,)))


def test_equal_dialogues_are_at_no_distance():
    events = turn_taking([[(0.0, 1.0), (1.5, 2.0)], [(2.1, 3.0)]], 4.0)
    for _, distance in distance_infos("loudness", floor=True):
        assert distance([(events, events)]) == 0.0
