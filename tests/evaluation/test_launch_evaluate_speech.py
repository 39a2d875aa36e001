"""The command: one line on bad input, a table and the page's path on good input."""

import importlib.util
from pathlib import Path

import pytest

from csm.evaluation import suite

SCRIPT = Path(__file__).resolve().parents[2] / "launch" / "evaluate_speech.py"


@pytest.fixture
def command():
    spec = importlib.util.spec_from_file_location("evaluate_speech", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


def test_a_missing_run_is_one_line_that_says_what_to_do(command, tmp_path, capsys):
    assert command(["--run", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "generate_speech.py" in error


def test_a_run_or_a_comparison_is_asked_for(command):
    with pytest.raises(SystemExit):
        command([])


def test_a_run_ends_with_the_path_of_its_page_and_compares_with_itself(
    command, run_folder, monkeypatch, capsys
):
    monkeypatch.setattr(suite, "SECTIONS", {name: suite.SECTIONS[name] for name in ("SI-SDR", "latency")})
    assert command(["--run", str(run_folder)]) == 0
    shown = capsys.readouterr().out
    assert shown.isascii() and shown.splitlines()[-1] == f"report: {run_folder / 'report.html'}"
    written = (run_folder / "report.html").stat().st_mtime_ns
    assert command(["--run", str(run_folder), "--keep"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert (run_folder / "report.html").stat().st_mtime_ns == written
    assert command(["--compare", str(run_folder), str(run_folder)]) == 0
    assert "no difference shown" in capsys.readouterr().out
