"""Every group in every condition, clip by clip the same lines."""

import dataclasses

import numpy as np
import pytest
import torch

from csm.evaluation.subjects.voice_folder import GeneratedSpeech
from csm.evaluation.subjects.voice_lines import CONVERSATION, MAIN, OTHERS, UNSEEN, choose_lines
from csm.evaluation.subjects.voice_sets import voice_sets
from tests.evaluation.small_voice import RATE, small_corpus_of, small_sets, small_talker


@pytest.fixture
def corpus(tmp_path):
    return small_corpus_of(tmp_path)


def test_sets_hold_the_same_lines_and_resynthesis_is_of_the_models_codebooks_alone(
    corpus, tmp_path, tiny_model
):
    talker = small_talker(tiny_model)
    chosen = choose_lines(corpus, ["JOE", "FAYE"], 1)
    kept = GeneratedSpeech(tmp_path / "out", {})
    for line in (*chosen.main, *chosen.others, *chosen.unseen, *chosen.conversation):
        for condition in ("generated", "int8"):
            kept.keep(line, condition, torch.ones(1, 800) * 0.1, RATE, {"cut_off": True})
    calls = []
    sets = voice_sets(talker, corpus, chosen, kept, ["int8"], lambda: calls.append(1))
    shared = ["recording", "resynthesis", "generated"]
    assert [(one.group, one.condition) for one in sets] == [
        *((MAIN, condition) for condition in (*shared, "int8")),
        *((group, condition) for group in (OTHERS, UNSEEN, CONVERSATION) for condition in shared),
    ]
    assert len(calls) == 4
    for group in (MAIN, OTHERS, UNSEEN, CONVERSATION):
        assert len({tuple(clip.id for clip in one.clips) for one in sets if one.group == group}) == 1
    recorded, resynthesised, generated = sets.sets[:3]
    assert resynthesised.clips[0].duration == recorded.clips[0].duration
    assert recorded.clips[0].facts == {} and generated.clips[0].facts["cut_off"] is True
    fewer = dataclasses.replace(talker, model=tiny_model(num_codebooks=3))
    again = voice_sets(fewer, corpus, dataclasses.replace(chosen, conversation=()), kept, [])
    assert not np.array_equal(again.sets[1].clips[0].waveform, resynthesised.clips[0].waveform)


def test_a_set_is_found_by_group_and_condition(corpus):
    sets = small_sets(corpus)
    assert sets.of(MAIN, "recording") is sets.sets[0] is sets.recording_of(sets.sets[2])
    assert sets.of(MAIN, "int8") is None
    generated = {one.condition for one in sets if one.generated}
    assert generated == {"generated", "in_context", "semantic_codebooks"}
    assert {one.group for one in sets if one.kind == "turns"} == {CONVERSATION}
