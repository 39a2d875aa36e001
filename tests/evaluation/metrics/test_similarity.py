"""Voices are compared with other recordings; similarity and slope follow the main voice over the turns."""

import dataclasses

import numpy as np
import pytest

from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.metrics.similarity import OriginalSimilarity, SpeakerSimilarity
from csm.evaluation.metrics.speaker import reference_voices
from csm.evaluation.subjects.voice_lines import CONVERSATION, MAIN, UNSEEN, choose_lines
from tests.evaluation.small_voice import (
    PitchEncoder,
    changed,
    cheap_evaluators,
    measured,
    small_corpus_of,
    small_sets,
)

KNOWN = ("JOE", "FAYE")


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    cheap_evaluators(monkeypatch)
    return small_corpus_of(tmp_path)


def metric(corpus, prompts=None):
    chosen = choose_lines(corpus, list(KNOWN), 3)
    return SpeakerSimilarity(
        corpus,
        RunnerOptions(repeats=20),
        references=20,
        speakers=KNOWN,
        prompts=chosen.prompts if prompts is None else prompts,
        followed=("JOE",),
    )


def test_voices_are_separated_by_recordings_that_are_not_measured(corpus):
    one, sets = metric(corpus), small_sets(corpus)
    found = measured(one, sets)
    assert one.missing == [] and set(one.details["reference_voices"]) == {"JOE", "FAYE", "ANN"}
    assert one.details["reference_voices"]["ANN"] == 2
    for clips in sets:
        own = found["speaker_nearest_is_own", clips.group, clips.condition]
        assert own.mean == 1.0 and own.n_in == len(clips.clips)
        assert found["speaker_similarity", clips.group, clips.condition].mean > 0.9
    swapped = tuple(dataclasses.replace(clip, speaker="FAYE") for clip in sets.sets[0].clips)
    wrong = measured(metric(corpus), changed(sets, 0, clips=swapped))
    assert wrong["speaker_nearest_is_own", MAIN, "recording"].mean == 0.0


def test_the_slope_is_of_the_main_voices_turns_of_the_conversation(corpus):
    one, sets = metric(corpus), small_sets(corpus)
    found = measured(one, sets)
    for condition in ("recording", "resynthesis", "generated"):
        slope = found["character_drift", CONVERSATION, condition]
        assert slope.n_ok == 4 and slope.ci95 is not None and abs(slope.mean) < 0.05
        (series,) = one.details["character"][condition]["series"]
        assert series["speaker"] == "JOE" and [turn for turn, _ in series["points"]] == [0, 2, 4, 6]
    short = tuple(dataclasses.replace(c, waveform=c.waveform[:8000]) for c in sets.sets[-1].clips)
    one = metric(corpus)
    found = measured(one, changed(sets, -1, clips=short))
    assert one.details["character"]["generated"]["series"] == []
    lost = found["character_drift", CONVERSATION, "generated"]
    assert lost.mean is None and (lost.n_in, lost.n_failed) == (4, 4)
    failed = found["character_similarity", CONVERSATION, "generated"]
    assert failed.n_failed == 4 and "spoken in less than 1.6 s" in next(iter(failed.failures))


def test_voices_that_change_in_long_dialogues_are_counted_and_a_failed_turn_fails_its_voice(corpus):
    """Of JOE's eight turns the last three are FAYE's; his turns of other dialogues are too few."""
    recorded = small_sets(corpus).sets[-1]
    own = [clip for clip in recorded.clips if clip.speaker == "JOE"]
    other = next(clip for clip in recorded.clips if clip.speaker == "FAYE")

    def found(changed_from, short=None):
        clips = []
        for turn in range(8):
            clip = own[0] if turn < changed_from else other
            # Louder in every other turn: similarity varies and does not drop.
            noise = 0.01 * (1 + turn % 2) * np.random.default_rng(turn).normal(size=clip.waveform.shape)
            waveform = clip.waveform + noise.astype(np.float32)
            values = {"id": f"x{turn}", "speaker": "JOE", "turn": turn, "waveform": waveform}
            clips.append(dataclasses.replace(own[0], **values))
        one = metric(corpus)
        sets = changed(small_sets(corpus), -3, clips=tuple(clips))
        if short is not None:
            clips[short] = dataclasses.replace(clips[short], waveform=clips[short].waveform[:8000])
        return measured(one, changed(sets, -1, clips=tuple(clips)))[
            "character_changes", CONVERSATION, "generated"
        ], one

    entry, one = found(5)
    assert (entry.mean, entry.n_in, entry.n_failed) == (1.0, 1, 0)
    (change,) = one.details["character"]["generated"]["changes"]
    assert change["turn"] == 5 and change["p"] <= 0.05 and change["speaker"] == "JOE"
    assert found(8)[0].mean == 0.0
    lost, _ = found(8, short=2)
    assert (lost.mean, lost.n_in, lost.n_failed) == (1.0, 1, 1)


def test_speakers_without_recordings_to_compare_with_are_left_out_and_listed(corpus):
    one = metric(corpus, prompts={})
    found = measured(one, small_sets(corpus))
    assert "speaker similarity of ANN" in one.missing[0]
    unseen = [entry for (_, group, _), entry in found.items() if group == UNSEEN]
    assert unseen == []
    prompts = choose_lines(corpus, list(KNOWN), 3).prompts
    (corpus.root / prompts["ANN"][0].audio).unlink()
    voices = reference_voices(corpus, PitchEncoder(), count=20, seed=0, speakers=KNOWN, prompts=prompts)
    assert prompts["ANN"][0].id in voices.missing[0]


def test_the_recording_is_most_like_itself_and_another_speaker_is_not(corpus):
    sets = small_sets(corpus)
    others = sets.of("other voices", "recording").clips
    swapped = tuple(
        dataclasses.replace(clip, waveform=other.waveform)
        for clip, other in zip(sets.sets[2].clips, others, strict=True)
    )
    found = measured(OriginalSimilarity(), changed(sets, 2, clips=swapped))
    assert found["original_similarity", MAIN, "recording"].mean == pytest.approx(1.0)
    assert found["original_similarity", MAIN, "generated"].mean < 0.1
