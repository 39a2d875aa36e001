"""Every group in every version, clip by clip the same lines."""

import dataclasses

import numpy as np
import pytest
import torch

from csm.evaluation.voice_folder import SpokenLines
from csm.evaluation.voice_lines import CONVERSATION, MAIN, OTHERS, UNSEEN, choose_lines
from csm.evaluation.voice_material import clip_sets
from tests.evaluation.small_voice import RATE, small_corpus_of, small_material, small_talker


@pytest.fixture
def corpus(tmp_path):
    return small_corpus_of(tmp_path)


def test_sets_hold_the_same_lines_and_resynthesis_is_of_the_models_codebooks_alone(
    corpus, tmp_path, tiny_model
):
    talker = small_talker(tiny_model)
    chosen = choose_lines(corpus, ["JOE", "FAYE"], 1)
    kept = SpokenLines(tmp_path / "out", {})
    for line in (*chosen.main, *chosen.others, *chosen.unseen, *chosen.conversation):
        for version in ("generated", "int8"):
            kept.keep(line, version, torch.ones(1, 800) * 0.1, RATE, {"cut_off": True})
    calls = []
    sets = clip_sets(talker, corpus, chosen, kept, ["int8"], lambda: calls.append(1))
    shared = ["recording", "resynthesis", "generated"]
    assert [(one.group, one.version) for one in sets] == [
        *((MAIN, version) for version in (*shared, "int8")),
        *((group, version) for group in (OTHERS, UNSEEN, CONVERSATION) for version in shared),
    ]
    assert len(calls) == 4
    for group in (MAIN, OTHERS, UNSEEN, CONVERSATION):
        assert len({tuple(clip.id for clip in one.clips) for one in sets if one.group == group}) == 1
    recorded, resynthesised, generated = sets[:3]
    assert resynthesised.clips[0].duration == recorded.clips[0].duration
    assert recorded.facts == () and generated.facts[0]["cut_off"] is True
    fewer = dataclasses.replace(talker, model=tiny_model(num_codebooks=3))
    again = clip_sets(fewer, corpus, dataclasses.replace(chosen, conversation=()), kept, [])
    assert not np.array_equal(again[1].clips[0].waveform, resynthesised.clips[0].waveform)


def test_a_set_is_found_by_group_and_version(corpus):
    material = small_material(corpus)
    assert material.of(MAIN, "recording") is material.sets[0]
    assert material.of(MAIN, "int8") is None
    assert {one.version for one in material.spoken} == {"generated", "in_context", "semantic_codebooks"}
