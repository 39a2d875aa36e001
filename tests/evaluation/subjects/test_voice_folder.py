"""What was spoken stays: found again, refused to others, its failures counted."""

import dataclasses

import numpy as np
import pytest
import torch

from csm.evaluation.subjects.voice_folder import SPOKEN_FILE, GeneratedSpeech, origin_of
from csm.evaluation.subjects.voice_lines import choose_lines
from tests.evaluation.small_voice import small_corpus_of, small_talker


@pytest.fixture
def corpus(tmp_path):
    return small_corpus_of(tmp_path)


@pytest.fixture
def lines(corpus):
    return choose_lines(corpus, ["JOE", "FAYE"], 3).main


def test_lines_are_found_again_as_clips_with_their_facts(tmp_path, lines):
    folder = tmp_path / "out"
    kept = GeneratedSpeech(folder, {"seed": 0})
    waveform = torch.linspace(-0.5, 0.5, 800)[None]
    kept.keep(lines[0], "generated", waveform, 8000, {"cut_off": True})
    kept.keep(lines[1], "generated", None, 8000, {"reason": "a word too long"})
    again = GeneratedSpeech(folder, {"seed": 0})
    assert [again.has(line, "generated") for line in lines] == [True, True, False]
    assert not again.has(lines[0], "in_context")
    assert again.row(lines[0], "generated")["cut_off"] is True
    spoken, failed = again.clips(lines[:2], "generated")
    assert spoken.id == lines[0].id and spoken.text == lines[0].turn.text and spoken.sample_rate == 8000
    np.testing.assert_allclose(spoken.waveform, waveform[0].numpy(), atol=1e-4)
    assert failed.waveform is None and failed.reason == "a word too long"


def test_a_file_that_was_lost_or_broken_is_noticed(tmp_path, lines):
    kept = GeneratedSpeech(tmp_path / "out", {})
    for line in lines[:2]:
        kept.keep(line, "generated", torch.ones(1, 80), 8000, {})
    (tmp_path / "out" / f"{lines[0].id}.generated.wav").unlink()
    (tmp_path / "out" / f"{lines[1].id}.generated.wav").write_bytes(b"torn")
    again = GeneratedSpeech(tmp_path / "out", {})
    assert not again.has(lines[0], "generated")
    assert "cannot read" in again.clips(lines[1:2], "generated")[0].reason
    (tmp_path / "out" / SPOKEN_FILE).write_text('{"id": 1', encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be read .* delete"):
        GeneratedSpeech(tmp_path / "out", {})


def test_speech_of_other_weights_or_settings_is_refused(tmp_path, corpus, tiny_model):
    talker = small_talker(tiny_model)
    origin = origin_of(talker, corpus, 3, 0)
    assert origin == origin_of(small_talker(tiny_model), corpus, 3, 0)
    GeneratedSpeech(tmp_path / "out", origin)
    GeneratedSpeech(tmp_path / "out", origin)
    others = {
        "lines": origin_of(talker, corpus, 4, 0),
        "seed": origin_of(talker, corpus, 3, 1),
        "model_sha256": origin_of(small_talker(tiny_model, model=tiny_model(1)), corpus, 3, 0),
        "sampling": origin_of(
            dataclasses.replace(talker, sampling=dataclasses.replace(talker.sampling, top_k=7)), corpus, 3, 0
        ),
        "voices_sha256": origin_of(
            dataclasses.replace(talker, voices={"JOE": talker.voice("JOE")}), corpus, 3, 0
        ),
    }
    for field, other in others.items():
        assert [key for key in origin if origin[key] != other[key]] == [field]
        with pytest.raises(ValueError, match=f"holds other speech: {field}"):
            GeneratedSpeech(tmp_path / "out", other)
