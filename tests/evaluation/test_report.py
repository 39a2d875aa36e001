"""The page: self-contained, complete, and honest about what failed."""

import re

import pytest

from csm.evaluation import suite
from csm.evaluation.material import SuiteOptions
from csm.evaluation.report import write_page
from csm.evaluation.table import report_table

CHEAP = ("prosody", "SI-SDR", "turn taking", "latency", "codebooks")


def test_the_page_carries_everything_and_fetches_nothing(run_folder, monkeypatch):
    for module in ("parselmouth", "silero_vad", "matplotlib"):
        pytest.importorskip(module)
    monkeypatch.setattr(suite, "SECTIONS", {name: suite.SECTIONS[name] for name in CHEAP})
    report = suite.evaluate(run_folder, None, SuiteOptions(repeats=20))
    page = write_page(run_folder, report).read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert "http://" not in page and "https://" not in page
    # 3 lines and 4 turns in 3 versions, 2 dialogues, and one file that is missing
    assert page.count("<audio ") == 7 * 3 + 2 - 1
    assert page.count('alt="Spectrogram of') == 8
    assert "line_02.generated.wav" in page
    for heading in ("Figures", "Lines", "Dialogues", "Conversation", "Training", "Codebooks", "All metrics"):
        assert f"<h2>{heading}</h2>" in page
    table = report_table(report)
    assert table.isascii() and "failed" in table
