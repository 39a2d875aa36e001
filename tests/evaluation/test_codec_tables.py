"""The table shows means with intervals, failures with reasons, and what is not installed."""

from csm.evaluation.codec_tables import extra_text, ladder_html, ladder_text


def entry(condition, mean, **changes):
    return {
        **{"name": "stoi", "condition": condition, "mean": mean, "mean_of_judged": mean, "ci95": [0.7, 0.9]},
        **{"n_in": 4, "n_ok": 4, "n_failed": 0, "failures": {}},
        **changes,
    }


def version(name, **changes):
    return {"name": name, "title": name, "kbits": 1.25, "bits": "nominal: why", "delay_ms": 0.0} | {
        "missing": "",
        **changes,
    }


REPORT = {
    "versions": [
        version("original", kbits=None, bits=""),
        version("ten", delay_ms=18.75),
        version("opus", missing="not installed: apt install opus-tools"),
    ],
    "metrics": [
        entry("original", 1.0),
        entry(
            "ten",
            None,
            mean_of_judged=0.8,
            ci95=None,
            n_ok=3,
            n_failed=1,
            failures={"torn <1>": 1},
        ),
    ],
    "missing": [{"section": "opus", "reason": "opus not installed: apt install opus-tools"}],
    "conditioned": False,
    "clips": {"count": 4, "conversations": 2, "seconds": 9.6, "origin": "turns of the test split"},
}


def test_the_ascii_table_has_every_version_and_every_reason():
    shown = ladder_text(REPORT)
    assert shown.isascii()
    lines = shown.splitlines()
    assert lines[1].split() == ["original", "-", "-", "-", "1.000", "-", "-", "-", "4", "0"]
    assert lines[2].split() == ["0.700-0.900"]
    assert lines[3].split() == ["ten", "1.25", "-", "-", "0.800*", "-", "-", "-", "3", "1"]
    assert lines[4].split()[2:] == ["not", "installed:", "apt", "install", "opus-tools"]
    assert "failed: ten: STOI: torn <1> (1)" in lines and "from the codes alone" in shown
    assert "with each" not in shown and "speaker and emotion" in ladder_text({**REPORT, "conditioned": True})


def test_the_table_of_the_page_is_escaped_and_withholds_unfair_means():
    page = ladder_html(REPORT)
    assert "torn &lt;1&gt;" in page and "0.800 without the failed" in page and "18.8 ms late" in page
    assert page.count("<tr>") == 4 and "not installed: apt install opus-tools" in page


def test_further_tables_stand_in_columns():
    table = {"title": "T", "header": ("a", "bb"), "rows": [("long cell", "1")], "note": "n\u00e4her"}
    assert extra_text([table]).splitlines() == ["T", "a          bb", "long cell  1", "n?her"]
