"""The page of a run: self-contained, complete, with its failures."""

import re
import shutil

import pytest

from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.page.run_page import write_run_page
from csm.evaluation.page.run_tables import run_text
from csm.evaluation.subjects import run as runs
from csm.evaluation.subjects.run import RunOptions, evaluate_run

CHEAP = ("prosody", "log-mel distance", "turn taking", "latency", "length", "codebooks")


@pytest.fixture
def evaluate(run_folder, monkeypatch):
    for module in ("parselmouth", "silero_vad"):
        pytest.importorskip(module)
    rows = runs.run_metric_rows
    monkeypatch.setattr(runs, "run_metric_rows", lambda *given: {name: rows(*given)[name] for name in CHEAP})
    return lambda **more: evaluate_run(RunOptions(run=run_folder, runner=RunnerOptions(repeats=20), **more))


def test_the_page_carries_everything_and_fetches_nothing(evaluate, run_folder):
    report = evaluate()
    page = write_run_page(run_folder, report).read_text(encoding="utf-8")
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert sources and all(source.startswith(("data:", "#")) for source in sources)
    assert "http://" not in page and "https://" not in page
    # 3 lines and 4 turns in 3 conditions, 2 dialogues, and one file that is missing
    assert page.count("<audio ") == 7 * 3 + 2 - 1
    assert page.count('alt="Spectrogram') == 8
    assert "line_02.generated.wav" in page and "laid end to end" in page
    for heading in ("Summary", "Lines", "Dialogues", "Training", "Codebooks", "All metrics", "Evaluators"):
        assert f"<h2>{heading}</h2>" in page
    text = run_text(report)
    assert text.isascii() and "failed" in text and "reference" not in text


def test_a_reference_stands_in_cards_and_tables(evaluate, run_folder, tmp_path):
    speech = run_folder / "speech"  # a mean is compared only where no clip failed
    shutil.copy(speech / "line_01.generated.wav", speech / "line_02.generated.wav")
    evaluate()
    before = (run_folder / "report.json").rename(tmp_path / "before.json")
    report = evaluate(reference=before)
    page = write_run_page(run_folder, report).read_text(encoding="utf-8")
    assert 'class="reference"' in page and "difference" in page
    assert "difference" in run_text(report).splitlines()[0]
