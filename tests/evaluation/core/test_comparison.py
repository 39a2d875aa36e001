"""Two reports against each other."""

import pytest

from csm.evaluation.core.clips import Clip
from csm.evaluation.core.comparison import beside, compare_reports
from csm.evaluation.core.metric import MetricInfo, Scores, failed, scored
from csm.evaluation.core.report import Report, load_report, save_report
from csm.evaluation.core.statistics import entry_of
from csm.evaluation.page.run_tables import comparison_text


def report(name, values, *, worst=0.0, evaluator="j", group="lines", kind="run"):
    info = MetricInfo(
        name="m",
        title="M",
        area="a",
        unit="u",
        direction="higher",
        evaluator=evaluator,
        definition="d",
        worst=worst,
    )
    clips = [Clip(id=f"c{n}", conversation=f"k{n}") for n in range(len(values))]
    scores = [
        failed(clip, "gone") if value is None else scored(clip, value)
        for clip, value in zip(clips, values, strict=True)
    ]
    entry = entry_of(Scores(info=info, scores=scores), group=group, condition="generated", repeats=10)
    about = {"corpus": None, "seed": 0, "repeats": 10, "hardware": "a machine", "software": {}}
    return Report(kind=kind, run=name, conditions=["generated"], metrics=(entry,), **about)


def compared(first, second, **options):
    return compare_reports(report("a", first, **options), report("b", second, **options))[0]


def test_a_steady_gain_is_found_under_large_spread():
    values = [0.1 * n for n in range(10)]
    row = compared(values, [value + 0.02 + 0.001 * (n % 3) for n, value in enumerate(values)])
    assert row.verdict == "better" and row.difference == pytest.approx(0.0209, abs=1e-3)


def test_deleting_outputs_is_worse_and_never_better():
    row = compared([0.2] * 8 + [0.9] * 8, [None] * 8 + [0.9] * 8)
    assert row.difference < 0 and row.verdict == "worse"


def test_without_an_end_of_scale_failures_are_not_compared():
    row = compared([0.2, 0.4], [None, 0.4], worst=None)
    assert row.verdict == "not comparable" and row.unpaired == 1


def test_noise_shows_no_difference():
    row = compared([0.5] * 10, [0.5 + (0.1 if n % 2 else -0.1) for n in range(10)])
    assert row.verdict == "no difference shown"


def test_another_evaluator_is_not_compared():
    row = compare_reports(report("a", [0.1, 0.2]), report("b", [0.3, 0.4], evaluator="k"))[0]
    assert row.difference is None and row.verdict == "not comparable"


def test_the_table_is_plain_and_a_missing_report_is_named(tmp_path):
    a, b = report("a", [0.1, 0.2]), report("b", [0.3, 0.4])
    assert comparison_text(compare_reports(a, b), "a", "b").isascii()
    with pytest.raises(ValueError, match="evaluate that run first"):
        load_report(tmp_path / "c")


def test_a_finished_report_stands_beside_this_one_with_its_difference(tmp_path):
    save_report(tmp_path, report("before", [0.1, 0.2, 0.3]))
    (row,) = beside(report("after", [0.2, 0.3, 0.5]), tmp_path).rows
    assert row.mean == pytest.approx(0.2) and row.difference == pytest.approx(0.4 / 3)
    assert row.ci95[0] > 0 and row.of_group == "lines"


def test_a_report_of_other_clips_has_a_difference_without_interval(tmp_path):
    save_report(tmp_path, report("packaged", [0.1, 0.2, 0.3], group="main voice", kind="voice"))
    (row,) = beside(report("after", [0.2, 0.4]), tmp_path).rows
    assert row.of_group == "main voice" and row.ci95 is None
    assert row.difference == pytest.approx(0.1)
