"""The tables show every group, what changed from what, and what is not known."""

import dataclasses

from csm.evaluation.core.report import Entry, Missing
from csm.evaluation.page.figures import failures, report_text, table_html
from csm.evaluation.page.voice_tables import TITLES, voice_tables
from tests.evaluation.core.test_comparison import report as empty_report


def entry(name, group, condition, mean, **changes):
    about = {"name": name, "group": group, "condition": condition, "mean": mean, "mean_of_scored": mean}
    about |= {"ci95": [mean - 0.1, mean + 0.1], "n_in": 4, "n_ok": 4, "n_failed": 0, "failures": {}}
    about |= {"title": name, "area": "a", "unit": "u", "direction": "lower", "definition": "d"}
    return Entry(**{**about, "conversations": 2, "evaluator": "timed on a machine", **changes})


def report(*metrics, ablations="Off means <off>."):
    voice = {"main": "JOE", "voices": 3, "codebooks": 16, "max_context": 1024}
    voice |= {"lines_in_context": 4, "lines_with_memory": 1}
    return dataclasses.replace(
        empty_report("v", []),
        kind="voice",
        metrics=metrics,
        missing=(Missing("distillMOS", "distillMOS needs distillmos"),),
        details={"voice": voice, "ablations": ablations},
    )


LOST = {"mean": None, "ci95": None, "n_failed": 1, "failures": {"<torn>": 1}}
WHOLE = report(
    *(entry("wer", "main voice", name, 0.25) for name in ("recording", "resynthesis", "generated")),
    entry("wer", "unseen speakers", "generated", 0.5),
    entry("heard_wer", "main voice", "recording", 0.75),
    entry("heard_wer_permuted", "main voice", "recording", 1.25),
    entry("ended_wrong", "main voice", "generated", 0.25, ci95=None),
    dataclasses.replace(entry("speaker_similarity", "main voice", "generated", 0.75), **LOST),
    entry("wer", "main voice", "cross_attention_off", 0.5),
    entry("wer_change", "main voice", "cross_attention_off", 0.25),
    entry("wer", "conversation", "generated", 0.125, ci95=None),
    entry("character_drift", "conversation", "generated", -0.0125, n_ok=8),
    entry(
        "first_sound",
        "main voice",
        "generated",
        0.3,
        quantiles={"n": 4.0, "p50": 0.31, "p90": 0.42, "p99": 0.5},
        median_ci95=[0.3, 0.4],
    ),
)


def test_groups_conditions_the_conversation_and_times_each_have_a_table():
    voice, hearing, conditions, conversation, times = voice_tables(WHOLE)
    assert [cell.text for cell in hearing.rows[0]] == ["main voice", "0.750", "1.250", "0.250", "4", "0"]
    assert [row[1].text for row in voice.rows] == ["recording", "resynthesis", "generated", "generated"]
    assert voice.rows[0][2] == ("0.250", "0.150 to 0.350") and voice.rows[0][3].text == "-"
    assert voice.rows[2][3].text == "0.750*" and voice.rows[2][-1].text == "1"
    assert [row[:2] for row in conditions.rows][1] == (("cross-attention off", ""), ("generated", ""))
    assert conditions.rows[1][3] == ("+0.250", "+0.150 to +0.350") and conditions.rows[0][3].text == "-"
    assert "1 of 4 lines" in conditions.note and "1024 rows" in conditions.note
    assert conversation.rows[0][1].text == "-0.0125" and conversation.rows[0][2].text == "8"
    assert [cell.text for cell in times.rows[0]][2:] == ["0.310", "0.420", "0.500", "4", "0"]
    assert times.rows[0][2].below == "0.300 to 0.400"
    for table in (voice, hearing, conditions, conversation, times):
        assert all(len(row) == len(table.header) for row in table.rows)


def test_tables_without_rows_are_left_out():
    plain = report(entry("wer", "main voice", "generated", 0.25), ablations="")
    assert [table.title for table in voice_tables(plain)] == ["The voice"]


def test_the_text_is_ascii_with_intervals_below_and_what_failed_and_is_missing():
    shown = report_text(voice_tables(WHOLE), WHOLE, TITLES)
    assert shown.isascii() and "missing: distillMOS needs distillmos" in shown
    assert "failed: main voice, generated: <torn> (1)" in shown and "* mean of" in shown
    lines = shown.splitlines()
    assert lines[0] == "The voice" and lines[2].split()[:4] == ["main", "voice", "recording", "0.250"]
    assert lines[3].split() == ["0.150", "to", "0.350"]
    assert failures(WHOLE, TITLES) == ["main voice, generated: <torn> (1)"]


def test_the_page_escapes_and_shows_intervals():
    page = "".join(map(table_html, voice_tables(WHOLE)))
    assert "Off means &lt;off&gt;." in page and "0.150 to 0.350" in page and "0.750*" in page
