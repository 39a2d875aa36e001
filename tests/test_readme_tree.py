"""The tree in README names what exists, and every part of the package."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def entries() -> list[str]:
    """Returns the paths that the tree names, relative to the repository."""
    (block,) = re.findall(r"## The tree\n+```\n(.*?)```", README, flags=re.S)
    found: list[str] = []
    parents: dict[int, str] = {-2: ""}
    for line in block.splitlines():
        depth = len(line) - len(line.lstrip())
        names = re.split(r" {2,}", line.strip())[0].split()
        found += [parents[depth - 2] + name for name in names]
        parents[depth] = found[-1]
    return found


@pytest.mark.parametrize("path", entries())
def test_what_the_tree_names_exists(path):
    assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file()


def test_every_part_of_the_package_is_in_the_tree():
    parts = {
        f"csm/{path.name}{'/' if path.is_dir() else ''}"
        for path in (ROOT / "csm").iterdir()
        if path.suffix == ".py" or (path.is_dir() and path.name != "__pycache__")
    }
    assert parts - {"csm/__init__.py"} <= set(entries())


def test_docs_are_listed():
    listed = README[README.index("\ndocs/") :].split("\n", 2)[1]
    for path in (ROOT / "docs").glob("*.md"):
        assert path.name in listed, f"README's tree does not name docs/{path.name}"
