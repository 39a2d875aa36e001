"""docs/architecture.md: every file and name that it mentions exists."""

import ast
import re
from pathlib import Path

import pytest

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


def test_the_picture_fits_100_columns() -> None:
    (picture,) = re.findall(r"^```\n(.*?)^```$", PAGE, flags=re.M | re.S)
    assert max(map(len, picture.splitlines())) <= 100
