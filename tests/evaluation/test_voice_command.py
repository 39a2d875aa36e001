"""The command judges a voice folder, goes on where it was, and says in one line what it cannot do."""

import importlib.util
import json
from pathlib import Path

import pytest

from csm.evaluation import voice_speech
from tests.evaluation.small_voice import cheap_judges, small_corpus_of, small_talker

SCRIPT = Path(__file__).resolve().parents[2] / "launch" / "evaluate_speech.py"


@pytest.fixture
def command():
    spec = importlib.util.spec_from_file_location("evaluate_speech", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_a_voice_ends_with_its_tables_and_goes_on_where_it_was_stopped(
    command, tiny_model, tmp_path, monkeypatch, capsys
):
    cheap_judges(monkeypatch)
    (tmp_path / "corpus").mkdir()
    corpus = small_corpus_of(tmp_path / "corpus")
    small_talker(tiny_model).save_pretrained(tmp_path / "a_voice")
    given = ["--voice", str(tmp_path / "a_voice"), "--corpus", str(corpus.root)]
    given += ["--output", str(tmp_path / "out"), "--lines", "2"]
    say, count = voice_speech.Speaker.say, 0

    def stops(*arguments, **options):
        nonlocal count
        count += 1
        if count == 9:
            raise KeyboardInterrupt
        return say(*arguments, **options)

    monkeypatch.setattr(voice_speech.Speaker, "say", stops)
    with pytest.raises(KeyboardInterrupt):
        command(given)
    spoken = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "speech").glob("*.wav")}
    assert spoken
    assert command(given) == 0
    assert {path: path.stat().st_mtime_ns for path in spoken} == spoken
    shown = capsys.readouterr().out
    assert shown.isascii() and shown.splitlines()[-1] == f"report: {tmp_path / 'out' / 'report.html'}"
    for text in ("unseen speakers", "in context, memory off", "cross-attention off", "first sound, s"):
        assert text in shown
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["run"] == "a_voice" and "another question" in report["details"]["ablations"]
    assert command(["--compare", str(tmp_path / "out"), str(tmp_path / "out")]) == 0
    before = count
    assert command([*given, "--skip-ablations"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["conditions"] == ["recording", "resynthesis", "generated"] and count == before
    capsys.readouterr()
    assert command([*given[:-1], "1"]) == 1
    error = capsys.readouterr().err
    assert "holds other speech: lines (2 there, 1 here) differ" in error.splitlines()[-1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--lines", "0"], "lines is 0"),
        (["--corpus", "nowhere"], "no finished corpus"),
        (["--voice", "nowhere"], "no voice in nowhere"),
    ],
)
def test_bad_input_is_one_line(command, tmp_path, capsys, given, message):
    corpus = small_corpus_of(tmp_path)
    fine = ["--voice", str(tmp_path / "v"), "--corpus", str(corpus.root), "--output", str(tmp_path / "out")]
    assert command([*fine, *given]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


@pytest.mark.parametrize("given", [["--voice", "v"], ["--voice", "v", "--tokenizer", "t"]])
def test_what_is_missing_or_too_much_is_said_with_the_usage(command, given):
    with pytest.raises(SystemExit):
        command(given)
