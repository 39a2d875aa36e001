"""`csm evaluate`: tables and the page's path on good input, what to do on bad input."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import pytest

from csm import config as config_files
from csm.cli.evaluate import QUICKSTART_START, add_arguments, packaged_reference, run
from csm.data.manifest import CORPUS_NAME, MANIFEST_NAME, write_manifest
from csm.evaluation.core.report import Cell, Table, load_report
from csm.evaluation.subjects import codes, voice_speech
from csm.evaluation.subjects import run as runs
from csm.evaluation.subjects import tokenizer as tokenizers
from csm.recipes.named import recipe
from tests.evaluation.small_voice import cheap_evaluators, small_corpus_of, small_talker


def command(arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    run(parser.parse_args([str(argument) for argument in arguments]))


def only(monkeypatch, module, function, names):
    rows = getattr(module, function)
    monkeypatch.setattr(module, function, lambda *given: {name: rows(*given)[name] for name in names})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "expected one of --run"),
        (["--voice", "v", "--tokenizer", "t"], "expected one of --run"),
        (["--tokenizer", "t"], "need --corpus FOLDER"),
        (["--voice", "v"], "need --corpus FOLDER .* --texts everyday"),
        (["--voice", "v", "--texts", "everyday"], "--texts needs --voice FOLDER and --output DIR"),
        (["--codes", "c", "--texts", "everyday", "--output", "o"], "--texts needs --voice"),
        (["--run", "r", "--texts", "everyday", "--output", "o"], "--texts needs --voice"),
        (
            ["--voice", "v", "--texts", "everyday", "--corpus", "c", "--int8"],
            "no effect beside --texts",
        ),
        (["--voice", "v", "--corpus", "c", "--candidates", "2"], "no effect without --texts: --candidates"),
        (
            ["--voice", "v", "--texts", "everyday", "--output", "o", "--candidates", "2"],
            "expected --asr base",
        ),
        (["--run", "nowhere"], r"generate_speech\.py"),
    ],
)
def test_what_is_missing_or_too_much_is_an_error_that_says_what_to_do(given, message):
    with pytest.raises(ValueError, match=message):
        command(given)


def test_a_run_ends_with_the_path_of_its_page_and_compares_with_itself(run_folder, monkeypatch, capsys):
    only(monkeypatch, runs, "run_metric_rows", ("log-mel distance", "latency"))
    command(["--run", run_folder])
    shown = capsys.readouterr().out
    assert shown.isascii() and shown.splitlines()[-1] == f"report: {run_folder / 'report.html'}"
    written = (run_folder / "report.html").stat().st_mtime_ns
    command(["--run", run_folder, "--keep"])
    assert "nothing to do" in capsys.readouterr().out
    assert (run_folder / "report.html").stat().st_mtime_ns == written
    command(["--compare", run_folder, run_folder])
    # One conversation is too few for a verdict, even between equal runs.
    assert "no verdict: 1 of 6 conversations" in capsys.readouterr().out


def test_a_quickstart_run_has_the_report_of_its_initial_weights_beside_it(tmp_path):
    corpus = tmp_path / "corpus"
    given = load_report(QUICKSTART_START).find("wer", "lines", "generated").values
    lines = [(score.clip, score.conversation) for score in given]

    def written(name="amazon_queen_excerpt", lines=lines, **changes) -> Path:
        corpus.mkdir(exist_ok=True)
        (corpus / CORPUS_NAME).write_text(json.dumps({"name": name}))
        config = config_files.to_dict(replace(recipe("quickstart"), **{"corpus": str(corpus), **changes}))
        (tmp_path / "run.json").write_text(json.dumps({"config": {"run": config}}))
        (tmp_path / "speech").mkdir(exist_ok=True)
        rows = [{"kind": "line", "id": i, "conversation": c, "speaker": "A", "text": "x"} for i, c in lines]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / "speech/speech.jsonl").write_text(text)
        return tmp_path

    assert packaged_reference(tmp_path) is None
    assert packaged_reference(written()) == QUICKSTART_START
    assert packaged_reference(written(corpus=str(tmp_path / "moved"))) == QUICKSTART_START
    assert packaged_reference(written(name="other")) is None
    other = [(clip, "elsewhere") for clip, _ in lines]
    assert packaged_reference(written(lines=other, corpus=str(tmp_path / "moved"))) is None
    assert packaged_reference(written(model_start="scratch")) is None
    assert packaged_reference(written(recipe="telephone_model")) is None


def test_a_tokenizer_ends_with_its_tables_and_the_path_of_its_page(
    small_corpus,
    tiny_tokenizer,
    tmp_path,
    monkeypatch,
    capsys,
):
    only(monkeypatch, tokenizers, "tokenizer_metric_rows", ("log-mel distance",))
    tiny_tokenizer.save_pretrained(tmp_path / "run" / "tokenizer")
    write_manifest(small_corpus.root / MANIFEST_NAME, small_corpus.conversations)
    (small_corpus.root / CORPUS_NAME).write_text(json.dumps({"name": "small"}), encoding="utf-8")
    given = ["--tokenizer", tmp_path / "run" / "tokenizer", "--corpus", small_corpus.root]
    given += ["--output", tmp_path / "out", "--codebooks", "2,4", "--clips", "4"]
    command([*given, "--speakers", "JOE,FAYE"])
    shown = capsys.readouterr().out
    assert shown.isascii() and "2 codebooks" in shown
    assert shown.splitlines()[-1] == f"report: {tmp_path / 'out' / 'report.html'}"
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["kind"] == "tokenizer" and report["run"] == "run/tokenizer"
    assert "JOE, FAYE" in report["details"]["clips"]["origin"]
    command(["--compare", tmp_path / "out", tmp_path / "out"])
    with pytest.raises(ValueError, match="the tokenizer has 4"):
        command([*given, "--codebooks", "9"])


def test_codes_end_with_their_tables_and_the_path_of_their_page(
    small_corpus, tiny_tokenizer, tmp_path, monkeypatch, capsys
):
    table = Table("Phones in the codes", ("codebooks", "share"), [(Cell("0-9"), Cell("0.42"))], "A probe.")
    asked = []
    monkeypatch.setattr(codes, "what_the_codes_carry", lambda *given, **more: asked.append(more) or [table])
    tiny_tokenizer.save_pretrained(tmp_path / "run" / "tokenizer")
    write_manifest(small_corpus.root / MANIFEST_NAME, small_corpus.conversations)
    (small_corpus.root / CORPUS_NAME).write_text(json.dumps({"name": "small"}), encoding="utf-8")
    given = ["--codes", tmp_path / "run" / "tokenizer", "--corpus", small_corpus.root]
    command([*given, "--output", tmp_path / "out", "--speakers", "JOE,FAYE"])
    shown = capsys.readouterr().out
    assert shown.isascii() and "Phones in the codes" in shown and "0.42" in shown
    assert shown.splitlines()[-1] == f"report: {tmp_path / 'out' / 'report.html'}"
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["kind"] == "codes" and report["run"] == "run/tokenizer"
    assert asked[0]["verification"].speakers == ("JOE", "FAYE")


def test_a_voice_ends_with_its_tables_and_resumes_where_it_was_stopped(
    tiny_model, tmp_path, monkeypatch, capsys
):
    cheap_evaluators(monkeypatch)
    (tmp_path / "corpus").mkdir()
    corpus = small_corpus_of(tmp_path / "corpus")
    small_talker(tiny_model).save_pretrained(tmp_path / "a_voice")
    given = ["--voice", tmp_path / "a_voice", "--corpus", corpus.root]
    given += ["--output", tmp_path / "out", "--lines", "2"]
    say, count = voice_speech.LineSpeaker.say, 0

    def stops(*arguments, **options):
        nonlocal count
        count += 1
        if count == 9:
            raise KeyboardInterrupt
        return say(*arguments, **options)

    monkeypatch.setattr(voice_speech.LineSpeaker, "say", stops)
    with pytest.raises(KeyboardInterrupt):
        command(given)
    spoken = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "speech").glob("*.wav")}
    assert spoken
    command(given)
    assert {path: path.stat().st_mtime_ns for path in spoken} == spoken
    shown = capsys.readouterr().out
    assert shown.isascii() and shown.splitlines()[-1] == f"report: {tmp_path / 'out' / 'report.html'}"
    for text in ("unseen speakers", "in context, memory off", "cross-attention off", "first sound, s"):
        assert text in shown
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["run"] == "a_voice" and "without the part may differ" in report["details"]["ablations"]
    before = count
    command([*given, "--skip-ablations"])
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["conditions"] == ["recording", "resynthesis", "generated"] and count == before
    with pytest.raises(ValueError, match=r"holds other speech: lines \(2 there, 1 here\) differ"):
        command([*given[:-1], "1"])


def test_a_voice_is_measured_on_texts_without_a_corpus(tiny_model, tmp_path, monkeypatch, capsys):
    cheap_evaluators(monkeypatch)
    small_talker(tiny_model).save_pretrained(tmp_path / "a_voice")
    given = ["--voice", tmp_path / "a_voice", "--texts", "everyday", "--output", tmp_path / "out"]
    command([*given, "--lines", "2", "--speakers", "FAYE"])
    shown = capsys.readouterr().out
    assert shown.isascii() and shown.splitlines()[-1] == f"report: {tmp_path / 'out' / 'report.html'}"
    assert "FAYE" in shown and "first sound, s" in shown and "JOE" not in shown
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert report["kind"] == "texts" and report["details"]["texts"]["lines"] == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--lines", "0"], "lines is 0"),
        (["--corpus", "nowhere"], "no finished corpus"),
        (["--voice", "nowhere"], "there is no folder nowhere"),
    ],
)
def test_bad_input_of_a_voice_is_named(tmp_path, given, message):
    corpus = small_corpus_of(tmp_path)
    fine = ["--voice", tmp_path / "v", "--corpus", corpus.root, "--output", tmp_path / "out"]
    with pytest.raises(ValueError, match=message):
        command([*fine, *given])
