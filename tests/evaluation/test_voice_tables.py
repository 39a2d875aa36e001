"""The tables show every group, what changed against what, and what is not known."""

from csm.evaluation.voice_tables import failures, tables_html, tables_text, voice_tables


def entry(name, group, version, mean, **changes):
    about = {"name": name, "subset": group, "condition": version, "mean": mean, "mean_of_judged": mean}
    about |= {"ci95": [mean - 0.1, mean + 0.1], "n_in": 4, "n_ok": 4, "n_failed": 0, "failures": {}}
    return about | {"evaluator": "timed on a machine"} | changes


def report(*metrics, ablations="Off means <off>."):
    voice = {"main": "JOE", "voices": 3, "codebooks": 16, "max_context": 1024}
    voice |= {"lines_in_context": 4, "lines_with_memory": 1}
    missing = [{"section": "distillMOS", "reason": "distillMOS needs distillmos"}]
    return {
        "metrics": list(metrics),
        "missing": missing,
        "details": {"voice": voice, "ablations": ablations},
    }


WHOLE = report(
    *(entry("wer", "main voice", version, 0.25) for version in ("recording", "resynthesis", "generated")),
    entry("wer", "unseen speakers", "generated", 0.5),
    entry("ended_wrong", "main voice", "generated", 0.25, ci95=None),
    entry("speaker_similarity", "main voice", "generated", 0.75, n_failed=1, failures={"<torn>": 1})
    | {"mean": None, "ci95": None},
    entry("wer", "main voice", "cross_attention_off", 0.5),
    entry("wer_change", "main voice", "cross_attention_off", 0.25),
    entry("wer", "conversation", "generated", 0.125, ci95=None),
    entry("character_drift", "conversation", "generated", -0.0125, n_ok=8),
    entry("first_sound", "main voice", "generated", 0.3)
    | {"quantiles": {"n": 4.0, "p50": 0.31, "p90": 0.42, "p99": 0.5}},
)


def test_groups_versions_the_conversation_and_waits_each_have_a_table():
    voice, versions, conversation, waits = voice_tables(WHOLE)
    assert [row[1].text for row in voice.rows] == ["recording", "resynthesis", "generated", "generated"]
    assert voice.rows[0][2] == ("0.250", "0.150 to 0.350") and voice.rows[0][3].text == "-"
    assert voice.rows[2][3].text == "0.750*" and voice.rows[2][-1].text == "1"
    assert [row[:2] for row in versions.rows][1] == (("cross-attention off", ""), ("generated", ""))
    assert versions.rows[1][3] == ("+0.250", "+0.150 to +0.350") and versions.rows[0][3].text == "-"
    assert "1 of 4 lines" in versions.note and "1024 rows" in versions.note
    assert conversation.rows[0][1].text == "-0.0125" and conversation.rows[0][2].text == "8"
    assert [cell.text for cell in waits.rows[0]][2:] == ["0.310", "0.420", "0.500", "4", "0"]
    for table in (voice, versions, conversation, waits):
        assert all(len(row) == len(table.header) for row in table.rows)


def test_tables_without_rows_are_left_out():
    plain = report(entry("wer", "main voice", "generated", 0.25), ablations="")
    assert [table.title for table in voice_tables(plain)] == ["The voice"]


def test_the_text_is_ascii_with_intervals_below_and_what_failed_and_is_missing():
    shown = tables_text(WHOLE)
    assert shown.isascii() and "missing: distillMOS needs distillmos" in shown
    assert "failed: main voice, generated: <torn> (1)" in shown and "* of the lines" in shown
    lines = shown.splitlines()
    assert lines[0] == "The voice" and lines[2].split()[:4] == ["main", "voice", "recording", "0.250"]
    assert lines[3].split() == ["0.150", "to", "0.350"]
    assert failures(WHOLE) == ["main voice, generated: <torn> (1)"]


def test_the_page_escapes_and_lines_up_figures():
    page = tables_html(voice_tables(WHOLE))
    assert "Off means &lt;off&gt;." in page and "<small>0.150 to 0.350</small>" in page
    assert '<td class="n">0.750*' in page and "<td>recording</td>" in page
