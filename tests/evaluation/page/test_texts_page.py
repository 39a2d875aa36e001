"""Tables and page of texts: a row for each voice, players of its first lines."""

from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.page.texts_page import texts_tables, write_texts_page
from csm.evaluation.subjects.texts import TextsOptions, evaluate_texts
from tests.evaluation.small_voice import cheap_evaluators, small_talker


def test_each_voice_has_a_row_and_players_of_its_first_lines(tiny_model, tmp_path, monkeypatch) -> None:
    cheap_evaluators(monkeypatch)
    small_talker(tiny_model).save_pretrained(tmp_path / "voice")
    (tmp_path / "lines.txt").write_text(
        "You and whose army?\nWho <are> you?\nI had a plane.", encoding="utf-8"
    )
    options = TextsOptions(
        voice=tmp_path / "voice",
        texts=tmp_path / "lines.txt",
        output=tmp_path / "out",
        speakers=("JOE", "FAYE"),
        runner=RunnerOptions(repeats=20),
    )
    evaluated = evaluate_texts(options)
    said, waited = texts_tables(evaluated.report)
    assert [row[0].text for row in said.rows] == ["JOE", "FAYE"]
    # distillMOS is not installed in this test.
    assert [cell.text for cell in (said.rows[0][2], *said.rows[0][4:])] == ["-", "3", "0"]
    assert [(row[0].text, row[1].text) for row in waited.rows] == [
        (name, title) for name in ("JOE", "FAYE") for title in ("first sound, s", "real-time factor")
    ]
    page = write_texts_page(tmp_path / "out", evaluated, players=2).read_text(encoding="utf-8")
    assert "Temperature 0.9, guidance 0." in page and "renditions" not in page
    assert page.count("<audio") == 4 and "2 of 3 lines" in page
    assert "Who &lt;are&gt; you?" in page and "<are>" not in page
    assert "distillMOS needs distillmos" in page
