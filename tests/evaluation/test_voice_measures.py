"""Lengths, ends and waits; nothing improves when a line is lost."""

import dataclasses

import numpy as np
import pytest

from csm.evaluation.voice_lines import MAIN
from csm.evaluation.voice_measures import lengths, waits
from tests.evaluation.small_voice import small_corpus_of, small_material


@pytest.fixture
def material(tmp_path):
    return small_material(small_corpus_of(tmp_path), versions=())


def changed(material, place=0, facts=None, **changes):
    """The material with one generated line of the main voice changed."""
    sets = list(material.sets)
    clips, known = list(sets[2].clips), list(sets[2].facts)
    clips[place] = dataclasses.replace(clips[place], **changes)
    known[place] = known[place] | (facts or {})
    sets[2] = dataclasses.replace(sets[2], clips=tuple(clips), facts=tuple(known))
    return dataclasses.replace(material, sets=tuple(sets))


def found(entries, name):
    (entry,) = [one for one in entries if one["name"] == name and one["subset"] == MAIN]
    return entry


def test_lines_a_tenth_longer_are_near_and_ended_well(material):
    entries = lengths(material)
    assert found(entries, "length_ratio")["mean"] == pytest.approx(1.1, abs=0.01)
    assert found(entries, "length_median")["mean"] == pytest.approx(1.1, abs=0.01)
    assert found(entries, "length_median")["ci95"] is not None
    assert found(entries, "length_near")["mean"] == 1.0 and found(entries, "ended_wrong")["mean"] == 0.0
    assert {entry["condition"] for entry in entries} == {"generated"}


@pytest.mark.parametrize(
    ("changes", "near", "wrong"),
    [
        ({"waveform": np.ones(8000, np.float32)}, 2 / 3, 0.0),
        ({"waveform": np.ones(6000, np.float32)}, 2 / 3, 1 / 3),
        ({"waveform": np.ones(60000, np.float32)}, 2 / 3, 1 / 3),
        ({"facts": {"cut_off": True}}, 1.0, 1 / 3),
        ({"waveform": None, "reason": "too long a word"}, 2 / 3, 1 / 3),
    ],
)
def test_a_line_that_stopped_ran_on_or_is_lost_counts_as_such(material, changes, near, wrong):
    if changes.get("waveform") is not None and len(changes["waveform"]) == 8000:
        changes["waveform"] = np.ones(round(0.7 * 16000 * material.sets[0].clips[0].duration), np.float32)
    entries = lengths(changed(material, **changes))
    assert found(entries, "length_near")["mean"] == pytest.approx(near)
    assert found(entries, "ended_wrong")["mean"] == pytest.approx(wrong)
    lost = "reason" in changes
    assert found(entries, "length_median")["n_failed"] == lost
    assert (found(entries, "length_median")["mean"] is None) == lost


def test_a_recording_that_cannot_be_read_is_a_failure_with_its_reason(material):
    first = material.sets[0]
    clips = (dataclasses.replace(first.clips[0], waveform=None, reason="torn"), *first.clips[1:])
    sets = (dataclasses.replace(first, clips=clips), *material.sets[1:])
    entry = found(lengths(dataclasses.replace(material, sets=sets)), "length_near")
    assert entry["failures"] == {"recording: torn": 1}


def test_waits_have_quantiles_and_a_silent_line_fails(material):
    entries = waits(material)
    assert [entry["name"] for entry in entries] == ["first_chunk", "first_sound", "rtf"]
    assert found(entries, "first_sound")["quantiles"] == {"n": 3.0, "p50": 0.3, "p90": 0.3, "p99": 0.3}
    assert found(entries, "rtf")["quantiles"]["p50"] == pytest.approx(0.5)
    assert "a machine" in found(entries, "rtf")["evaluator"]
    silent = {"timing": material.sets[2].facts[0]["timing"] | {"first_sound_s": None}}
    entry = found(waits(changed(material, facts=silent)), "first_sound")
    assert entry["failures"] == {"the audio is silent": 1} and entry["quantiles"]["n"] == 2.0
