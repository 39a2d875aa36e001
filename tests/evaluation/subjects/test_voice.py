"""The report of a voice: every group, every evaluator that is there, the same again from what was kept."""

from dataclasses import replace

import pytest
import soundfile

from csm.evaluation.core.report import save_report
from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.page.voice_page import write_voice_page
from csm.evaluation.subjects import voice_speech
from csm.evaluation.subjects.voice import VoiceOptions, measure_voice
from csm.evaluation.subjects.voice_lines import UNSEEN
from csm.generation.speech_rows import read_rows
from tests.evaluation.small_voice import cheap_evaluators, small_corpus_of, small_talker

SMALL = VoiceOptions(lines=1, ablations=False, runner=RunnerOptions(repeats=20))


@pytest.fixture
def corpus(tmp_path, monkeypatch):
    cheap_evaluators(monkeypatch)
    return small_corpus_of(tmp_path)


def test_everything_is_measured_and_a_second_run_reads_what_was_kept(
    corpus, tiny_model, tmp_path, monkeypatch
):
    talker = small_talker(tiny_model)
    report, sets, prompts = measure_voice(talker, corpus, tmp_path / "out", SMALL, name="small")
    assert report.kind == "voice" and report.conditions == ["recording", "resynthesis", "generated"]
    known = {(one.group, one.condition) for one in sets}
    assert {(one.group, one.condition) for one in report.metrics} == known and len(known) == 12
    assert all(one.n_ok + one.n_failed == one.n_in for one in report.metrics)
    assert [missing.section for missing in report.missing] == ["distillMOS"]
    voice = report.details["voice"]
    assert voice["main"] == "JOE" and voice["codebooks"] == 5 and voice["lines"]["conversation"] == 8
    assert voice["prompts"]["ANN"]["turns"] == len(prompts["ANN"]) == 2
    assert report.details["ablations"] == ""
    assert {"first_chunk", "first_sound", "rtf", "length_median", "character_drift"} <= {
        one.name for one in report.metrics
    }
    # Not spoken again: the times would differ.
    monkeypatch.setattr(voice_speech.LineSpeaker, "say", None)
    again = measure_voice(talker, corpus, tmp_path / "out", SMALL, name="small").report
    assert again == report
    one_worker = VoiceOptions(lines=1, ablations=False, runner=RunnerOptions(repeats=20, workers=1))
    third = measure_voice(talker, corpus, tmp_path / "out", one_worker, name="small").report
    written = [
        save_report(tmp_path / str(n), one).read_bytes() for n, one in enumerate((report, again, third))
    ]
    assert written[0] == written[1] == written[2]
    other = VoiceOptions(lines=1, runner=RunnerOptions(seed=1))
    with pytest.raises(ValueError, match="other speech: seed"):
        measure_voice(talker, corpus, tmp_path / "out", other)


def test_csm_1b_is_measured_on_speakers_that_prompt_it(corpus, csm_1b, tmp_path):
    evaluated = measure_voice(csm_1b, corpus, tmp_path / "out", replace(SMALL, ablations=True))
    report, _, prompts = evaluated
    assert {one.group for one in report.metrics} == {UNSEEN} and prompts
    assert {one.condition for one in report.metrics} == {"recording", "resynthesis", "generated"}
    # A random Mimi gives a steady sound, which is no speech: what was spoken is what is looked at.
    (row,) = read_rows(tmp_path / "out" / "speech" / "spoken.jsonl")
    assert row["timing"]["frames"] >= 10 and row["speaker"] in prompts
    assert soundfile.info(tmp_path / "out" / "speech" / row["audio"]).samplerate == 24_000
    assert {"transcription", "main voice"} <= {missing.section for missing in report.missing}
    page = write_voice_page(tmp_path / "out", evaluated, 1).read_text(encoding="utf-8")
    assert "Listen: unseen speakers" in page and "no speech" in page


@pytest.mark.parametrize("bad", [{"lines": 0}, {"players": -1}])
def test_options_that_cannot_be_are_refused(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        VoiceOptions(**bad)
