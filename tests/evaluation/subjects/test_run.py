"""The whole evaluation of a small run: counted, repeatable, beside another report."""

import json

import pytest

from csm.evaluation.core.report import load_report
from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.subjects import run as runs
from csm.evaluation.subjects.run import RunOptions, evaluate_run, run_sets
from csm.evaluation.subjects.speech_folder import read_speech_folder

CHEAP = ("prosody", "log-mel distance", "turn taking", "latency", "length", "codebooks")


@pytest.fixture
def cheap_metrics(monkeypatch):
    for module in ("parselmouth", "silero_vad"):
        pytest.importorskip(module)
    rows = runs.run_metric_rows
    monkeypatch.setattr(
        runs, "run_metric_rows", lambda *given: {name: rows(*given)[name] for name in (*CHEAP, "reply style")}
    )


def options(run_folder, **changes):
    return RunOptions(run=run_folder, runner=RunnerOptions(repeats=20), **changes)


def test_the_report_counts_everything_and_is_the_same_twice(run_folder, cheap_metrics):
    report = evaluate_run(options(run_folder))
    first = (run_folder / "report.json").read_bytes()
    evaluate_run(options(run_folder))
    assert (run_folder / "report.json").read_bytes() == first
    assert load_report(run_folder) == report and json.loads(first)["kind"] == "run"
    for entry in report.metrics:
        assert entry.n_ok + entry.n_failed == entry.n_in
        assert entry.n_failed == sum(entry.failures.values())
        assert entry.evaluator and entry.unit and entry.direction
    lost = [e for e in report.metrics if (e.condition, e.group) == ("generated", "lines")]
    assert lost and all(entry.n_failed == 1 for entry in lost)
    assert {"prosody", "codec", "turn taking", "latency", "codebooks"} <= {e.area for e in report.metrics}


def test_what_the_inputs_lack_is_missing_and_clips_end_to_end_have_no_offsets(run_folder, cheap_metrics):
    report = evaluate_run(options(run_folder))
    reasons = " ".join(missing.reason for missing in report.missing)
    assert "the style of replies needs the corpus" in reasons and "laid end to end" in reasons
    assert not [entry for entry in report.metrics if entry.name.startswith(("fto", "gap"))]


def test_a_finished_report_stands_beside_this_one(run_folder, cheap_metrics, tmp_path):
    evaluate_run(options(run_folder))
    path = (run_folder / "report.json").rename(tmp_path / "before.json")
    report = evaluate_run(options(run_folder, reference=path))
    entry = report.find("log_mel_l1", "lines", "resynthesis")
    row = report.reference.of(entry)
    assert row.difference == 0.0 and row.mean == entry.mean and row.ci95 == [0.0, 0.0]
    with pytest.raises(ValueError, match="cannot read"):
        evaluate_run(options(run_folder, reference=tmp_path / "nowhere"))


def test_sets_hold_every_group_in_every_condition_that_was_written(run_folder):
    sets = run_sets(read_speech_folder(run_folder / "speech"))
    assert [(one.group, one.condition) for one in sets] == [
        *(("lines", name) for name in ("recording", "resynthesis", "generated")),
        *(("dialogue turns", name) for name in ("recording", "resynthesis", "generated")),
        *(("dialogues", name) for name in ("recording", "generated")),
    ]
    assert sets.of("lines", "generated").clips[2].reason.startswith("cannot read line_02.generated.wav")
    assert sets.of("dialogues", "recording").clips[0].waveform.shape[0] == 2
    assert [clip.turn for clip in sets.of("dialogue turns", "generated").clips] == [0, 1, 2, 3]


def test_a_run_without_speech_says_what_to_do(tmp_path):
    with pytest.raises(ValueError, match=r"generate_speech\.py"):
        evaluate_run(RunOptions(run=tmp_path))


def test_options_that_cannot_be_are_refused(tmp_path):
    with pytest.raises(ValueError, match="references is 0"):
        RunOptions(run=tmp_path, references=0)
