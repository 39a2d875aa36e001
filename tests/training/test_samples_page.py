"""The page of samples plays every clip, and shows every validation metric with its unit."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
import torch

from csm.audio.files import write_audio
from csm.training.samples_page import samples_page

NAMES = ("A/1", "B <2>")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, column in enumerate(("original", "step_00000002", "step_00000004", "step_00000006")):
        for name in NAMES:
            tone = 0.3 * torch.sin(torch.arange(4000 + 100 * number)[None] / 9)
            write_audio(tmp_path / column / f"{quote(name, safe='')}.wav", tone, 8000)
    return tmp_path


def validations(steps: int) -> list[dict]:
    lines = [{"step": 2 * step, "split": "validation", "mel": 3.0 / step} for step in range(1, steps + 1)]
    return [*lines[:-1], {**lines[-1], "pitch_error": None}]


def test_the_page_plays_every_clip(folder):
    page = samples_page(folder, "a & b", validations(3))
    links = [unquote(link) for link in re.findall(r'<audio [^>]*src="([^"]+)"', page)]
    assert sorted(links) == sorted(path.relative_to(folder).as_posix() for path in folder.glob("*/*.wav"))
    assert "<h1>a &amp; b: samples</h1>" in page and "B &lt;2&gt;" in page
    assert re.findall("<h4>(Recording|Step [0-9]+)", page) == ["Recording", "Step 2", "Step 6", "Step 4"] * 2
    assert re.findall('data-duration="([^"]+)"', page)[:2] == ["0.500", "0.512"]


def test_a_clip_of_one_validation_is_there_once(folder):
    write_audio(folder / "original" / "late.wav", torch.ones(1, 80), 8000)
    write_audio(folder / "step_00000006" / "late.wav", torch.ones(1, 80), 8000)
    assert samples_page(folder, "run", []).count('src="step_00000006/late.wav"') == 1


def test_every_metric_has_a_chart_with_its_unit(folder):
    page = samples_page(folder, "run", validations(3))
    assert "<h4>Log-mel distance</h4>" in page and "L1 of natural log bands" in page
    assert page.count("<circle") == 3 and "pitch_error" not in page


def test_a_single_validation_is_a_value_and_no_chart(folder):
    page = samples_page(folder, "run", validations(1))
    assert "<b>3.00</b>" in page and "<circle" not in page
