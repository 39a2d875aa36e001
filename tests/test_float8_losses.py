"""benchmarks/float8_losses.py: its verdict follows from the last quarter of paired curves."""

import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def script():
    sys.path.insert(0, str(FOLDER))
    yield runpy.run_path(str(FOLDER / "float8_losses.py"))
    sys.path.remove(str(FOLDER))


def test_the_difference_is_that_of_the_last_quarter(script) -> None:
    before, beside = [9.0] * 6 + [2.02, 4.04], [1.0] * 6 + [2.0, 4.0]
    assert script["difference"](before, beside) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("found", "control", "expected"),
    [
        (0.004, 0.0, "equal"),
        (-0.2, 0.0, "equal"),
        (0.02, 0.004, "worse"),
        (0.02, -0.03, "undecided"),
        (float("nan"), 0.004, "worse"),
    ],
)
def test_the_verdict_knows_what_chance_does(script, found, control, expected) -> None:
    assert script["verdict"](found, control, 0.01) == expected


def test_a_table_has_the_means_of_stretches(script) -> None:
    lines = script["table"]({"bf16": [float(n) for n in range(16)]})
    assert lines[2] == "| 1 to 2 | 0.500 |" and len(lines) == 10
