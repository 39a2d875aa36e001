"""The page of a voice carries tables and players, and fetches nothing."""

import dataclasses
import re

import pytest

from csm.evaluation.core.report import save_report
from csm.evaluation.core.runner import RunnerOptions, run_metrics
from csm.evaluation.page.voice_page import write_voice_page
from csm.evaluation.subjects.voice import EvaluatedVoice, VoiceOptions, voice_metric_rows
from csm.evaluation.subjects.voice_lines import MAIN, choose_lines
from tests.evaluation.small_voice import changed, cheap_evaluators, small_corpus_of, small_sets, small_talker


@pytest.fixture
def evaluated(tmp_path, monkeypatch, tiny_model):
    cheap_evaluators(monkeypatch)
    corpus = small_corpus_of(tmp_path)
    sets = small_sets(corpus)
    first, *others = sets.sets[0].clips
    torn = dataclasses.replace(first, waveform=None, reason="torn <file>")
    sets = changed(sets, 0, clips=(torn, *others))
    prompts = choose_lines(corpus, ["JOE", "FAYE"], 3).prompts
    options = RunnerOptions(repeats=20)
    rows = voice_metric_rows(VoiceOptions(runner=options), corpus, small_talker(tiny_model), prompts)
    results = run_metrics(rows, sets, options)
    voice = {"main": "JOE", "voices": 2, "codebooks": 5, "parameters": 12345, "max_context": 320}
    voice |= {"lines": {MAIN: 3}, "lines_in_context": 3, "lines_with_memory": 0}
    results.details |= {"voice": voice, "ablations": "Off means: closed."}
    report = results.report("voice", "small <voice>", "small", options, conditions=sets.conditions)
    return EvaluatedVoice(report, sets, prompts)


def test_the_page_has_tables_players_and_transcripts(evaluated, tmp_path):
    path = write_voice_page(save_report(tmp_path / "out", evaluated.report).parent, evaluated, 2)
    page = path.read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    # Two lines of each group in three conditions, two more of the main voice's, and eight turns.
    assert page.count("<audio ") == 3 * 2 * 3 + 2 * 2 + 8 * 3 - 1
    assert "Voice report: small &lt;voice&gt;" in page and "torn &lt;file&gt;" in page
    for text in ("Off means: closed.", "A conversation", "Latency", "cosine", "Prompt: You and whose"):
        assert text in page
    assert "nearest voice: JOE" in page and "2 of 3 lines" in page and "other versions" in page
    assert "distillMOS needs distillmos" in page
    assert 'id="main.t' in page and 'id="conversation.t0_0"' in page
    first = path.read_bytes()
    write_voice_page(tmp_path / "out", evaluated, 2)
    assert path.read_bytes() == first


def test_a_page_without_players_has_the_conversation_alone(evaluated, tmp_path):
    page = write_voice_page(tmp_path, evaluated, 0).read_text(encoding="utf-8")
    assert page.count("<audio ") == 8 * 3 and "Listen: the main voice" not in page
