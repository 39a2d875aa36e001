"""A field of a recipe exists because a recipe, a preset or a test sets it."""

from __future__ import annotations

import ast
import dataclasses
import typing
from pathlib import Path

import pytest

from csm.recipes.run_config import RunConfig

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    *ROOT.glob("csm/recipes/**/*.py"),
    *(ROOT / "csm" / part for part in ("tokenizer/presets.py", "network/presets.py")),
    ROOT / "csm/network/public_configs.py",
    *ROOT.glob("tests/**/*.py"),
)


def config_classes(cls: type = RunConfig) -> dict[str, type]:
    """The config and all that it holds, by name."""
    found = {cls.__name__: cls}
    for hint in typing.get_type_hints(cls).values():
        if dataclasses.is_dataclass(hint):
            found |= config_classes(hint)
    return found


def fields_that_are_set() -> set[str]:
    """Names given as keywords of calls, as keys of dicts, or in assignments such as "training.steps=3"."""
    names: set[str] = set()
    for path in SOURCES:
        if path.name in (Path(__file__).name, "run_config.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                names |= {keyword.arg for keyword in node.keywords if keyword.arg}
            elif isinstance(node, ast.Dict):
                names |= {key.value for key in node.keys if isinstance(key, ast.Constant)}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value.partition("=")[0].rpartition(".")[2])
    return names


CONFIGS = config_classes()
SET = fields_that_are_set()


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_field_is_set_somewhere(name: str) -> None:
    unused = [field.name for field in dataclasses.fields(CONFIGS[name]) if field.name not in SET]
    assert not unused, f"{name}: {unused} are set by no recipe, preset or test: make them constants"


def test_a_field_that_nothing_sets_is_found() -> None:
    assert "RunConfig" in CONFIGS and "LoRAConfig" in CONFIGS
    assert "rows_per_micro_batch" in SET and "a_field_that_nothing_sets" not in SET
