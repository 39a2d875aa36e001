"""The report of a voice: every group, every judge that is there, the same again from what was kept."""

import json

import pytest

from csm.evaluation import voice_speech
from csm.evaluation.voice_report import VoiceOptions, judge_voice, refuse_other_report
from tests.evaluation.small_voice import cheap_judges, small_corpus_of, small_talker

SMALL = VoiceOptions(lines=1, ablations=False, repeats=20)


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    cheap_judges(monkeypatch)
    return small_corpus_of(tmp_path)


def test_everything_is_judged_and_a_second_run_reads_what_was_kept(corpus, tiny_model, tmp_path, monkeypatch):
    talker = small_talker(tiny_model)
    report, material = judge_voice(talker, corpus, tmp_path / "out", SMALL, name="small")
    assert report["kind"] == "voice" and report["conditions"] == ["recording", "resynthesis", "generated"]
    sets = {(one.group, one.version) for one in material.sets}
    assert {(one["subset"], one["condition"]) for one in report["metrics"]} == sets and len(sets) == 12
    assert all(one["n_ok"] + one["n_failed"] == one["n_in"] for one in report["metrics"])
    assert [missing["section"] for missing in report["missing"]] == ["distillMOS"]
    voice = report["details"]["voice"]
    assert voice["main"] == "JOE" and voice["codebooks"] == 5 and voice["lines"]["conversation"] == 8
    assert voice["prompts"]["ANN"]["turns"] == 2 and report["details"]["ablations"] == ""
    assert {"first_chunk", "first_sound", "rtf", "length_median", "character_drift"} <= {
        one["name"] for one in report["metrics"]
    }
    # Not spoken again: the times would differ.
    monkeypatch.setattr(voice_speech.Speaker, "say", None)
    again, _ = judge_voice(talker, corpus, tmp_path / "out", SMALL, name="small")
    assert json.dumps(again, sort_keys=True) == json.dumps(report, sort_keys=True)
    with pytest.raises(ValueError, match="other speech: seed"):
        judge_voice(talker, corpus, tmp_path / "out", VoiceOptions(lines=1, seed=1))


@pytest.mark.parametrize("bad", [{"lines": 0}, {"repeats": 0}, {"workers": 0}, {"seed": -1}, {"players": -1}])
def test_options_that_cannot_be_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        VoiceOptions(**bad)


def test_a_report_of_anything_else_is_not_overwritten(tmp_path):
    refuse_other_report(tmp_path)
    (tmp_path / "report.json").write_text('{"kind": "voice"}')
    refuse_other_report(tmp_path)
    (tmp_path / "report.json").write_text('{"kind": "tokenizer"}')
    with pytest.raises(ValueError, match="name another --output"):
        refuse_other_report(tmp_path)
