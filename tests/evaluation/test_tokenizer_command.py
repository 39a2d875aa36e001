"""The command judges a tokenizer folder and says what it lacks."""

import importlib.util
import json
from pathlib import Path

import pytest

from csm.data.manifest import CORPUS_NAME, MANIFEST_NAME, write_manifest
from csm.evaluation import codec_judges, tokenizer_command
from csm.evaluation.codec_ladder import ExtraTable

SCRIPT = Path(__file__).resolve().parents[2] / "launch" / "evaluate_speech.py"


@pytest.fixture
def command():
    spec = importlib.util.spec_from_file_location("evaluate_speech", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_a_tokenizer_ends_with_its_table_and_the_path_of_its_page(
    command, small_corpus, tiny_tokenizer, tmp_path, monkeypatch, capsys
):
    judges = {"log-mel distance": codec_judges.JUDGES["log-mel distance"]}
    monkeypatch.setattr(codec_judges, "JUDGES", judges)
    table = ExtraTable("Letters in the codes", ("codebooks", "errors"), [("0-9", "0.42")], "A probe.")
    monkeypatch.setattr(tokenizer_command, "what_the_codes_carry", lambda tokenizer, corpus: [table])
    tiny_tokenizer.save_pretrained(tmp_path / "run" / "tokenizer")
    write_manifest(small_corpus.root / MANIFEST_NAME, small_corpus.conversations)
    (small_corpus.root / CORPUS_NAME).write_text(json.dumps({"name": "small"}), encoding="utf-8")
    given = ["--tokenizer", str(tmp_path / "run" / "tokenizer"), "--corpus", str(small_corpus.root)]
    given += ["--output", str(tmp_path / "out"), "--codebooks", "2,4", "--clips", "4"]
    assert command(given) == 0
    shown = capsys.readouterr().out
    assert shown.isascii() and "2 codebooks" in shown and "Letters in the codes" in shown
    assert shown.splitlines()[-1] == f"report: {tmp_path / 'out' / 'report.html'}"
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["kind"] == "tokenizer" and report["run"] == "run/tokenizer"
    assert command(["--compare", str(tmp_path / "out"), str(tmp_path / "out")]) == 0
    assert command([*given, "--skip-probes"]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["extra_tables"] == []
    capsys.readouterr()
    assert command([*given, "--codebooks", "9"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "the tokenizer has 4" in error


@pytest.mark.parametrize(
    "given", [["--tokenizer", "t"], ["--tokenizer", "t", "--run", "r"], ["--corpus", "c"]]
)
def test_what_is_missing_or_too_much_is_said_with_the_usage(command, given):
    with pytest.raises(SystemExit):
        command(given)
