"""Judges hear every set; what they compare with is of other recordings; the main voice's slope is told."""

import dataclasses

import pytest

from csm.evaluation import voice_judges
from csm.evaluation.judge import JudgeUnavailable
from csm.evaluation.voice_judges import Opinions, naturalness_heard, voice_heard, words_heard
from csm.evaluation.voice_lines import CONVERSATION, MAIN, UNSEEN
from tests.evaluation.small_voice import PitchEncoder, cheap_judges, small_corpus_of, small_material


@pytest.fixture
def material(tmp_path, monkeypatch):
    cheap_judges(monkeypatch)
    return small_material(small_corpus_of(tmp_path))


def entry(opinions, name, group, version):
    (found,) = [
        one
        for one in opinions.entries
        if (one["name"], one["subset"], one["condition"]) == (name, group, version)
    ]
    return found


def test_voices_are_told_apart_by_recordings_that_are_not_judged(material):
    calls = []
    opinions = voice_heard(material, lambda: calls.append(1))
    assert len(calls) == len(material.sets) and opinions.missing == []
    assert set(opinions.details["reference_voices"]) == {"JOE", "FAYE", "ANN"}
    assert opinions.details["reference_voices"]["ANN"] == len(material.prompts["ANN"])
    for one in material.sets:
        own = entry(opinions, "speaker_nearest_is_own", one.group, one.version)
        assert own["mean"] == 1.0 and own["n_in"] == len(one.clips)
        assert entry(opinions, "speaker_similarity", one.group, one.version)["mean"] > 0.9
    swapped = tuple(dataclasses.replace(clip, speaker="FAYE") for clip in material.sets[0].clips)
    wrong = dataclasses.replace(material, sets=(dataclasses.replace(material.sets[0], clips=swapped),))
    assert entry(voice_heard(wrong, list), "speaker_nearest_is_own", MAIN, "recording")["mean"] == 0.0


def test_the_slope_is_of_the_main_voices_turns_of_the_conversation(material):
    opinions = voice_heard(material, list)
    for version in ("recording", "resynthesis", "generated"):
        slope = entry(opinions, "character_drift", CONVERSATION, version)
        assert slope["n_ok"] == 4 and slope["ci95"] is not None and abs(slope["mean"]) < 0.05
        assert [turn for turn, _ in opinions.details["character"][version]] == [0, 2, 4, 6]
    last = material.sets[-1]
    short = tuple(dataclasses.replace(clip, waveform=clip.waveform[:8000]) for clip in last.clips)
    cut = dataclasses.replace(material, sets=(*material.sets[:-1], dataclasses.replace(last, clips=short)))
    opinions = voice_heard(cut, list)
    assert opinions.details["character"]["generated"] == []
    assert not [one for one in opinions.entries if one["name"] == "character_drift" and one["mean"] is None]


def test_speakers_without_recordings_to_compare_with_are_left_out_and_said(material):
    opinions = voice_heard(dataclasses.replace(material, prompts={}), list)
    assert "speaker similarity of ANN" in opinions.missing[0]
    assert not [one for one in opinions.entries if one["subset"] == UNSEEN]
    lost = material.prompts["ANN"][0]
    (material.corpus.root / lost.audio).unlink()
    opinions = Opinions(material)
    voice_judges.reference_voices(material, PitchEncoder(), opinions)
    assert lost.id in opinions.missing[0]


def test_words_are_heard_in_every_set_and_a_missing_judge_says_so(material):
    opinions = words_heard(material, list)
    wer = entry(opinions, "wer", MAIN, "generated")
    assert wer["values"][0]["detail"] == "you and whose army" and wer["n_in"] == 3
    assert len(opinions.entries) == 2 * len(material.sets)
    with pytest.raises(JudgeUnavailable):
        naturalness_heard(material, list)
