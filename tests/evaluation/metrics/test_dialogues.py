"""Timings of dialogues: real ones are compared, clips laid end to end are not."""

import dataclasses

import numpy as np
import pytest

from csm.evaluation.core.clips import Clip, ClipSet, ClipSets
from csm.evaluation.core.evaluators import NotMeasurable
from csm.evaluation.metrics import dialogues
from csm.evaluation.metrics.dialogues import LAID_END_TO_END, NO_TRANSFER, DialogueTiming, distance_infos
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


def fallen_silent(given, *, channels):
    """The sets with the second generated dialogue silent from its first sample on, in some channels."""
    recorded, generated = given.sets
    first, second = generated.clips
    waveform = second.waveform.copy()
    waveform[channels] = 0.0
    clips = (first, dataclasses.replace(second, waveform=waveform))
    return ClipSets(sets=(recorded, dataclasses.replace(generated, clips=clips)))


@pytest.mark.parametrize("channels", [[1], [0, 1]])
def test_a_dialogue_that_falls_silent_fails_in_every_metric(metric, channels):
    found = measured(metric, fallen_silent(sets(shared=True), channels=channels))
    generated = {name: entry for (name, _, where), entry in found.items() if where == "generated"}
    for name, entry in generated.items():
        assert (entry.n_in, entry.n_ok, entry.n_failed) == (2, 1, 1), name
        assert entry.mean == entry.worst, name  # no value where the scale has no end
    assert generated["fto_kolmogorov_smirnov"].mean == 1.0


def test_a_dialogue_without_a_change_of_speaker_fails_where_changes_are_measured(metric):
    given = sets(shared=True)
    waveform = given.sets[1].clips[1].waveform.copy()
    waveform[0], waveform[1] = 0.0, 0.0
    waveform[0, 4000:36000] = waveform[1, 8000:16000] = 1.0  # one speaks only inside the other's speech
    clips = (given.sets[1].clips[0], dataclasses.replace(given.sets[1].clips[1], waveform=waveform))
    changed = ClipSets(sets=(given.sets[0], dataclasses.replace(given.sets[1], clips=clips)))
    found = measured(metric, changed)
    for name in ("fto", "gap", "overlap_share", "fto_wasserstein_1", "fto_jensen_shannon_divergence"):
        entry = found[name, "dialogues", "generated"]
        assert entry.failures == {NO_TRANSFER: 1} and entry.mean == entry.worst, name
    assert found["ipu", "dialogues", "generated"].n_failed == 0


def test_without_dialogues_nothing_is_measured(metric):
    lines = ClipSet(group="lines", condition="recording", clips=(Clip(id="a"),))
    with pytest.raises(NotMeasurable, match="no dialogues"):
        measured(metric, ClipSets(sets=(lines,)))


def test_equal_dialogues_are_at_no_distance():
    events = turn_taking([[(0.0, 1.0), (1.5, 2.0)], [(2.1, 3.0)]], 4.0)
    for _, distance in distance_infos("loudness", floor=True):
        assert distance([(events, events)]) == 0.0
