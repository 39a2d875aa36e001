"""The whole evaluation on a small run: counted, repeatable, and going on without a judge."""

import json

import pytest

from csm.evaluation import suite
from csm.evaluation.judge import optional_import
from csm.evaluation.material import SuiteOptions
from csm.evaluation.speech_folder import read_speech_folder

CHEAP = ("prosody", "SI-SDR", "log-mel distance", "turn taking", "latency", "codebooks")


def absent(material):
    optional_import("no_such_judge", package="no-such-judge", metric="a metric")


@pytest.fixture
def cheap_sections(monkeypatch):
    for module in ("parselmouth", "silero_vad"):
        pytest.importorskip(module)
    kept = {name: suite.SECTIONS[name] for name in CHEAP} | {"absent": absent}
    monkeypatch.setattr(suite, "SECTIONS", kept)


def test_the_report_counts_everything_and_is_the_same_twice(run_folder, cheap_sections):
    options = SuiteOptions(repeats=100)
    report = suite.evaluate(run_folder, None, options)
    first = (run_folder / "report.json").read_bytes()
    suite.evaluate(run_folder, None, options)
    assert (run_folder / "report.json").read_bytes() == first
    assert json.loads(first) == json.loads(json.dumps(report))
    for entry in report["metrics"]:
        assert entry["n_ok"] + entry["n_failed"] == entry["n_in"]
        assert entry["n_failed"] == sum(entry["failures"].values())
        assert entry["evaluator"] and entry["unit"] and entry["direction"]
    gone = [e for e in report["metrics"] if e["condition"] == "generated" and e["subset"] == "lines"]
    assert gone and all(entry["n_failed"] == 1 for entry in gone)
    assert not list(run_folder.glob("*.tmp"))


def test_a_missing_judge_is_listed_and_the_rest_goes_on(run_folder, cheap_sections):
    report = suite.evaluate(run_folder, None, SuiteOptions(repeats=10))
    reasons = [missing["reason"] for missing in report["missing"]]
    assert any("no-such-judge" in reason and "pip install no-such-judge" in reason for reason in reasons)
    assert {"prosody", "codec", "turn taking", "latency", "codebooks"} <= {
        e["area"] for e in report["metrics"]
    }


def test_another_number_of_workers_changes_nothing(run_folder, cheap_sections):
    one = suite.evaluate(run_folder, None, SuiteOptions(repeats=10, workers=1))
    assert one == suite.evaluate(run_folder, None, SuiteOptions(repeats=10, workers=3))


def test_a_run_that_has_said_nothing_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"generate_speech\.py"):
        suite.evaluate(tmp_path)


def test_a_bad_line_of_the_speech_folder_is_named(run_folder):
    path = run_folder / "speech" / "speech.jsonl"
    path.write_text(path.read_text(encoding="utf-8") + '{"kind": "line"}\n', encoding="utf-8")
    with pytest.raises(ValueError, match="line 9: field 'id' is missing"):
        read_speech_folder(run_folder / "speech")


def test_options_are_checked():
    with pytest.raises(ValueError, match="workers is 0"):
        SuiteOptions(workers=0)
