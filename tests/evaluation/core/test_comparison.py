"""Two reports against each other."""

import dataclasses

import numpy as np
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
    save_report(tmp_path, report("before", [0.1, 0.2, 0.3, 0.1, 0.2, 0.3]))
    (row,) = beside(report("after", [0.2, 0.3, 0.5, 0.2, 0.3, 0.5]), tmp_path).rows
    assert row.mean == pytest.approx(0.2) and row.difference == pytest.approx(0.4 / 3)
    assert row.ci95[0] > 0 and row.of_group == "lines"


def test_a_report_of_other_clips_has_a_difference_without_interval(tmp_path):
    save_report(tmp_path, report("packaged", [0.1, 0.2, 0.3], group="main voice", kind="voice"))
    (row,) = beside(report("after", [0.2, 0.4]), tmp_path).rows
    assert row.of_group == "main voice" and row.ci95 is None
    assert row.difference == pytest.approx(0.1)


def test_below_six_conversations_there_is_no_verdict():
    five = [0.1, 0.2, 0.1, 0.2, 0.1]
    row = compared(five, [value + 0.5 for value in five])
    assert row.verdict == "no verdict: 5 of 6 conversations" and row.ci95 is not None and row.p is None
    six = [*five, 0.2]
    assert compared(six, [value + 0.5 for value in six]).verdict == "better"


def test_a_verdict_of_one_row_alone_is_none_in_a_table_of_many():
    generator = np.random.default_rng(3)
    pairs = [generator.normal(size=(2, 12)) for _ in range(40)]
    pairs[0][1] = pairs[0][0] + generator.normal(0.9, 1.0, size=12)
    alone = compared(*pairs[0])
    assert alone.verdict == "better" and 0.05 / 40 < alone.p < 0.05
    a, b = (
        dataclasses.replace(
            report("r", [0.0]),
            metrics=tuple(
                dataclasses.replace(report("r", pair[side]).metrics[0], name=f"m{number}")
                for number, pair in enumerate(pairs)
            ),
        )
        for side in (0, 1)
    )
    assert {row.verdict for row in compare_reports(a, b)} == {"no difference shown"}
