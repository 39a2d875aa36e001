"""The page of a voice carries tables and players, and fetches nothing."""

import dataclasses
import re

import pytest

from csm.evaluation.voice_judges import voice_heard, words_heard
from csm.evaluation.voice_lines import MAIN
from csm.evaluation.voice_measures import lengths, waits
from csm.evaluation.voice_page import write_voice_page
from csm.evaluation.voice_report import JudgedVoice
from tests.evaluation.small_voice import cheap_judges, small_corpus_of, small_material


@pytest.fixture
def judged(tmp_path, monkeypatch):
    cheap_judges(monkeypatch)
    material = small_material(small_corpus_of(tmp_path))
    first, *others = material.sets
    clips = (dataclasses.replace(first.clips[0], waveform=None, reason="torn <file>"), *first.clips[1:])
    material = dataclasses.replace(material, sets=(dataclasses.replace(first, clips=clips), *others))
    heard = [words_heard(material, list), voice_heard(material, list)]
    metrics = [one for opinions in heard for one in opinions.entries]
    voice = {"main": "JOE", "voices": 2, "codebooks": 5, "parameters": 12345, "max_context": 320}
    voice |= {"lines": {MAIN: 3}, "lines_in_context": 3, "lines_with_memory": 0}
    report = {
        "schema_version": 1,
        "kind": "voice",
        "run": "small <voice>",
        "corpus": "small",
        "seed": 0,
        "hardware": "a machine",
        "metrics": metrics + lengths(material) + waits(material),
        "missing": [{"section": "distillMOS", "reason": "distillMOS needs distillmos"}],
        "details": heard[1].details | {"voice": voice, "ablations": "Off means: closed."},
    }
    return JudgedVoice(report, material)


def test_the_page_has_tables_players_and_what_was_heard(judged, tmp_path):
    path = write_voice_page(tmp_path / "out", judged, 2)
    page = path.read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    # Two lines of each group in three versions, two more versions of the main voice's, and eight turns.
    assert page.count("<audio ") == 3 * 2 * 3 + 2 * 2 + 8 * 3 - 1
    assert "Voice report: small &lt;voice&gt;" in page and "torn &lt;file&gt;" in page
    for text in ("Off means: closed.", "A conversation", "The wait", "cosine", "Prompt: You and whose"):
        assert text in page
    assert "nearest voice: JOE" in page and "2 of 3 lines" in page and "other versions" in page
    assert "distillMOS needs distillmos" in page and (tmp_path / "out" / "report.json").is_file()
    assert 'id="main.t' in page and 'id="conversation.t0_0"' in page
    first = path.read_bytes()
    write_voice_page(tmp_path / "out", judged, 2)
    assert path.read_bytes() == first


def test_a_page_without_players_has_the_conversation_alone(judged, tmp_path):
    page = write_voice_page(tmp_path / "out", judged, 0).read_text(encoding="utf-8")
    assert page.count("<audio ") == 8 * 3 and "Listen: the main voice" not in page
