"""Table and page of a tokenizer's report: complete, self-contained, the same bytes again."""

import re
from html import escape

import pytest

from csm.evaluation import codec_judges
from csm.evaluation.codec_ladder import ExtraTable, LadderOptions, judge_tokenizer
from csm.evaluation.codec_page import write_ladder

OPTIONS = LadderOptions(codebooks=(2, 4), clips=4, repeats=20, players=3)
EXTRA = ExtraTable("Words from <codes>", ("codebooks", "accuracy"), [("0-9", "0.71")], "Our own probe.")


@pytest.fixture
def judged(small_corpus, tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(codec_judges, "JUDGES", {"log-mel distance": codec_judges.JUDGES["log-mel distance"]})
    monkeypatch.setattr("shutil.which", lambda command: None)
    (small_corpus.root / small_corpus.conversations[0].turns[0].audio).unlink()
    return judge_tokenizer(tiny_tokenizer, small_corpus, OPTIONS, extra=[EXTRA])


def test_the_page_carries_everything_and_fetches_nothing(judged, tmp_path):
    path = write_ladder(tmp_path / "out", judged)
    page = path.read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert "http://" not in page and "https://" not in page
    lost = sum(clip.waveform is None for clip in judged.versions[0].clips[:3])
    assert page.count("<audio ") == (3 - lost) * 3
    assert "What the codes carry" in page and "Words from &lt;codes&gt;" in page and "Our own probe." in page
    assert page.count("not installed: apt install opus-tools") >= 2
    assert "from the codes alone, without speaker or emotion embedding" in page
    first = (path.read_bytes(), (tmp_path / "out" / "report.json").read_bytes())
    write_ladder(tmp_path / "out", judged)
    assert (path.read_bytes(), (tmp_path / "out" / "report.json").read_bytes()) == first


def test_a_page_without_further_tables_has_no_heading_for_them(judged, tmp_path):
    judged.report["extra_tables"] = []
    assert "What the codes carry" not in write_ladder(tmp_path / "out", judged).read_text(encoding="utf-8")


def test_heard_words_stand_under_the_players(judged, tmp_path):
    text = judged.versions[1].clips[0].text
    entry = next(entry for entry in judged.report["metrics"] if entry["condition"] == "codebooks_2")
    values = [{**value, "value": 0.25, "detail": "nothing <of> it"} for value in entry["values"]]
    judged.report["metrics"].append({**entry, "name": "wer", "values": values})
    page = write_ladder(tmp_path / "out", judged).read_text(encoding="utf-8")
    assert "WER 25 %" in page and "<of>" not in page and escape(text) in page
