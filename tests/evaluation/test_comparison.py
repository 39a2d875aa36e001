"""Two reports against each other."""

import json

import pytest

from csm.evaluation.comparison import compare_reports, comparison_table
from csm.evaluation.statistics import MetricInfo, failed, judged, summarise


def report(path, values, *, worst=0.0, judge="j"):
    info = MetricInfo(
        name="m",
        title="M",
        area="a",
        unit="u",
        direction="higher",
        evaluator=judge,
        definition="d",
        worst=worst,
    )
    scores = [
        failed(f"c{n}", f"k{n}", "gone") if value is None else judged(f"c{n}", f"k{n}", value)
        for n, value in enumerate(values)
    ]
    entry = summarise(info, scores, condition="generated", subset="lines", repeats=10)
    path.mkdir()
    text = json.dumps({"schema_version": 1, "run": path.name, "metrics": [entry]})
    (path / "report.json").write_text(text, encoding="utf-8")
    return path


def compared(tmp_path, first, second, **options):
    a = report(tmp_path / "a", first, **options)
    return compare_reports(a, report(tmp_path / "b", second, **options))["metrics"][0]


def test_a_steady_gain_is_found_under_large_spread(tmp_path):
    values = [0.1 * n for n in range(10)]
    row = compared(tmp_path, values, [value + 0.02 + 0.001 * (n % 3) for n, value in enumerate(values)])
    assert row["verdict"] == "better" and row["difference"] == pytest.approx(0.0209, abs=1e-3)


def test_deleting_outputs_is_worse_and_never_better(tmp_path):
    row = compared(tmp_path, [0.2] * 8 + [0.9] * 8, [None] * 8 + [0.9] * 8)
    assert row["difference"] < 0 and row["verdict"] == "worse"


def test_without_an_end_of_scale_failures_are_not_compared(tmp_path):
    row = compared(tmp_path, [0.2, 0.4], [None, 0.4], worst=None)
    assert row["verdict"] == "not comparable" and row["unpaired"] == 1


def test_noise_shows_no_difference(tmp_path):
    row = compared(tmp_path, [0.5] * 10, [0.5 + (0.1 if n % 2 else -0.1) for n in range(10)])
    assert row["verdict"] == "no difference shown"


def test_the_table_is_plain_and_a_missing_report_is_named(tmp_path):
    a, b = report(tmp_path / "a", [0.1, 0.2]), report(tmp_path / "b", [0.3, 0.4])
    assert comparison_table(compare_reports(a, b)).isascii()
    with pytest.raises(ValueError, match="run launch/evaluate_speech.py"):
        compare_reports(a, tmp_path / "c")
