"""Lengths and ends of lines; nothing improves when a line is lost."""

import dataclasses

import numpy as np
import pytest

from csm.evaluation.metrics.lengths import CutOff, Lengths
from csm.evaluation.subjects.voice_lines import MAIN
from tests.evaluation.small_voice import changed, measured, small_corpus_of, small_sets


@pytest.fixture
def sets(tmp_path):
    return small_sets(small_corpus_of(tmp_path), conditions=())


def entries(sets):
    found = measured(Lengths(), sets)
    return {name: entry for (name, group, _), entry in found.items() if group == MAIN}


def test_lines_a_tenth_longer_are_near_and_ended_well(sets):
    found = entries(sets)
    assert found["length_ratio"].mean == pytest.approx(1.1, abs=0.01)
    assert found["length_median"].mean == pytest.approx(1.1, abs=0.01)
    assert found["length_median"].ci95 is not None
    assert found["length_near"].mean == 1.0 and found["ended_wrong"].mean == 0.0
    assert {condition for _, _, condition in measured(Lengths(), sets)} == {"generated"}


@pytest.mark.parametrize(
    ("changes", "near", "wrong"),
    [
        ({"share": 0.7}, 2 / 3, 0.0),
        ({"waveform": np.ones(6000, np.float32)}, 2 / 3, 1 / 3),
        ({"waveform": np.ones(60000, np.float32)}, 2 / 3, 1 / 3),
        ({"facts": {"cut_off": True}}, 1.0, 1 / 3),
        ({"waveform": None, "reason": "too long a word"}, 2 / 3, 1 / 3),
    ],
)
def test_a_line_that_stopped_ran_on_or_is_lost_counts_as_such(sets, changes, near, wrong):
    first, *others = sets.sets[2].clips
    if share := changes.pop("share", None):
        changes["waveform"] = np.ones(round(share * 16000 * sets.sets[0].clips[0].duration), np.float32)
    found = entries(changed(sets, 2, clips=(dataclasses.replace(first, **changes), *others)))
    assert found["length_near"].mean == pytest.approx(near)
    assert found["ended_wrong"].mean == pytest.approx(wrong)
    lost = "reason" in changes
    assert found["length_median"].n_failed == lost
    assert (found["length_median"].mean is None) == lost


def test_a_recording_that_cannot_be_read_is_a_failure_with_its_reason(sets):
    first, *others = sets.sets[0].clips
    torn = dataclasses.replace(first, waveform=None, reason="torn")
    assert entries(changed(sets, 0, clips=(torn, *others)))["length_near"].failures == {"recording: torn": 1}


def test_lines_that_were_cut_off_or_lost_count_as_such_without_recordings(sets):
    first, second, *others = sets.sets[2].clips
    first = dataclasses.replace(first, facts={"cut_off": True})
    second = dataclasses.replace(second, waveform=None, reason="too long a word")
    found = measured(CutOff(), changed(sets, 2, clips=(first, second, *others)))
    shares = {group: entry.mean for (_, group, _), entry in found.items()}
    assert shares[MAIN] == pytest.approx(2 / 3) and {*shares.values()} == {shares[MAIN], 0.0}
