"""docs/architecture.md: every file and name that it mentions exists."""

import ast
import re
from pathlib import Path

import pytest
import torch

from csm.sequences.frames import IGNORE, RowBuilder, TurnFrames
from csm.text import ByteCodec

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
MENTIONED = re.findall(r"`((?:csm|kernels|launch|tests)/[\w/]*(?:\.py)?)(?:: ([\w.]+))?`", PAGE)


def names(body: list[ast.stmt], prefix: str = "") -> set[str]:
    """Returns the functions, classes and methods of a module."""
    found: set[str] = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                found |= names(node.body, f"{prefix}{node.name}.")
    return found


@pytest.mark.parametrize(("file", "name"), sorted(set(MENTIONED)))
def test_a_mentioned_file_or_name_exists(file: str, name: str) -> None:
    path = ROOT / file
    assert path.exists(), f"{file} is gone: correct docs/architecture.md"
    if name:
        assert name in names(ast.parse(path.read_text(encoding="utf-8")).body), f"{file} has no {name}"


def test_the_walks_name_the_functions_of_each_step() -> None:
    assert sum(bool(name) for _, name in MENTIONED) > 40


def picture() -> list[str]:
    (block,) = re.findall(r"^```\n(.*?)^```$", PAGE, flags=re.M | re.S)
    return block.splitlines()


def test_the_picture_fits_100_columns() -> None:
    assert max(map(len, picture())) <= 100


def test_the_picture_shows_the_rows_that_are_built() -> None:
    builder = RowBuilder(ByteCodec(), 2, 1024)
    ends = torch.tensor([0, 0.5, 1.5, 2.5, 3])
    builder.add_spoken(TurnFrames("a", "Hi", 0, torch.zeros(2, 3, dtype=torch.int64), ends=ends))
    builder.add_transcribed(TurnFrames("b", "Ok", 1, torch.zeros(2, 2, dtype=torch.int64)))
    batch = builder.build()
    filled = {
        "text": batch.text >= 0,
        "codes": batch.codes[:, 0] >= 0,
        "next codes": batch.code_target[:, 0] != IGNORE,
        "next text": batch.text_target != IGNORE,
        "log frames": ~batch.duration_target.isnan(),
        "of each id": ~batch.pace_target.isnan(),
    }
    for label, expected in filled.items():
        (line,) = [line for line in picture() if line.startswith(f"{label} ")]
        assert [cell != "." for cell in line[len(label) :].split()] == expected.tolist(), label
    spans = [(s.first_query, s.num_queries, s.first_key, s.num_keys) for s in batch.spans]
    assert spans == [(5, 4, 0, 5), (13, 4, 11, 2)]
