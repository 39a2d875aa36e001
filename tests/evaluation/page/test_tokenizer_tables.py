"""The table shows means with intervals, failures with reasons, and what is not installed."""

import dataclasses

from csm.evaluation.core.report import Entry, Missing
from csm.evaluation.page.figures import report_text, table_html
from csm.evaluation.page.tokenizer_tables import titles_of, tokenizer_table
from csm.evaluation.subjects.tokenizer import GROUP
from tests.evaluation.core.test_comparison import report

INFO = {"title": "STOI", "area": "codec", "unit": "u", "direction": "higher", "evaluator": "e"}


def entry(condition, mean, **changes):
    numbers = {"mean": mean, "mean_of_scored": mean, "ci95": [0.7, 0.9], "conversations": 2}
    counts = {"n_in": 4, "n_ok": 4, "n_failed": 0, "failures": {}}
    about = {"name": "stoi", "definition": "d", "group": GROUP, "condition": condition}
    return Entry(**{**INFO, **about, **numbers, **counts, **changes})


def condition(name, **changes):
    plain = {"name": name, "title": name, "kbits": 1.25, "bits": "nominal: why", "delay_ms": 0.0}
    return plain | {"missing": "", "codebooks": 0} | changes


REPORT = dataclasses.replace(
    report("a", []),
    kind="tokenizer",
    metrics=(
        entry("original", 1.0),
        entry(
            "ten",
            None,
            mean_of_scored=0.8,
            ci95=None,
            n_ok=3,
            n_failed=1,
            failures={"torn <1>": 1},
        ),
    ),
    missing=(Missing("opus", "opus not installed: apt install opus-tools"),),
    details={
        "conditioned": False,
        "clips": {"count": 4, "conversations": 2, "seconds": 9.6, "origin": "turns of the test split"},
        "conditions": [
            condition("original", kbits=None, bits=""),
            condition("ten", delay_ms=18.75),
            condition("opus", missing="not installed: apt install opus-tools"),
        ],
    },
)


def test_the_ascii_table_has_every_condition_and_every_reason():
    shown = report_text([tokenizer_table(REPORT)], REPORT, titles_of(REPORT))
    assert shown.isascii()
    lines = shown.splitlines()
    assert lines[2].split() == ["original", "-", "-", "-", "1.000", "-", "-", "-", "4", "0"]
    assert lines[3].split() == ["0.700", "to", "0.900"]
    assert lines[4].split() == ["ten", "1.25", "-", "-", "0.800*", "-", "-", "-", "3", "1"]
    assert lines[5].split() == ["18.8", "ms", "late", "nominal"]
    assert f"failed: {GROUP}, ten: torn <1> (1)" in lines and "missing: opus not installed" in shown
    assert "from the codes alone" in tokenizer_table(REPORT).note and "* mean of" in shown
    given = dataclasses.replace(REPORT, details={**REPORT.details, "conditioned": True})
    assert "speaker and emotion embedding" in tokenizer_table(given).note


def test_the_table_of_the_page_is_escaped_and_withholds_unfair_means():
    page = table_html(tokenizer_table(REPORT))
    assert "0.800*" in page and "18.8 ms late" in page and "0.700 to 0.900" in page
    assert "not installed: apt install opus-tools" in page
