"""Configs go to JSON and back, and overrides are typed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from csm import config as config_files


@dataclass(frozen=True, kw_only=True)
class Inner:
    width: int = 4
    rates: tuple[float, ...] = (0.5, 0.25)
    pair: tuple[int, str] = (1, "a")
    mode: Literal["fast", "exact"] = "fast"

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"width: expected 1 or more, got {self.width}")


@dataclass(frozen=True, kw_only=True)
class Outer:
    name: str
    steps: int = 10
    rate: float = 1.0
    on: bool = False
    limit: float | None = None
    inner: Inner = field(default_factory=Inner)


CONFIG = Outer(name="run", limit=2.5, inner=Inner(width=8, rates=(1.0,)))


def test_a_config_comes_back_from_json_as_it_was(tmp_path: Path) -> None:
    config_files.save(CONFIG, tmp_path / "config.json")
    assert config_files.load(Outer, tmp_path / "config.json") == CONFIG
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_fields_with_defaults_may_be_left_out() -> None:
    assert config_files.from_dict(Outer, {"name": "x", "rate": 2}) == Outer(name="x", rate=2.0)


def test_all_problems_are_listed_in_one_message() -> None:
    mapping = {"stps": 3, "on": 1, "inner": {"width": "wide", "mode": "slow", "rates": [1, "x"]}}
    with pytest.raises(ValueError) as error:
        config_files.from_dict(Outer, mapping)
    for part in (
        "stps: unknown field; did you mean steps?",
        "name: missing",
        "on: expected bool, got 1",
        "inner.width: expected int, got 'wide'",
        "inner.mode: expected Literal['fast', 'exact'], got 'slow'",
        "inner.rates[1]: expected float, got 'x'",
    ):
        assert part in str(error.value)


def test_a_check_of_the_class_names_its_place() -> None:
    with pytest.raises(ValueError, match="inner: width: expected 1 or more, got 0"):
        config_files.from_dict(Outer, {"name": "x", "inner": {"width": 0}})


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_a_file_that_is_missing_or_no_config_is_named(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "config.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match="config.json"):
        config_files.load(Outer, path)


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("steps=100", Outer(name="run", steps=100)),
        ("rate=1e-3", Outer(name="run", rate=1e-3)),
        ("on=True", Outer(name="run", on=True)),
        ("limit=none", Outer(name="run")),
        ("limit=3", Outer(name="run", limit=3.0)),
        ("name=a=b", Outer(name="a=b")),
        ("inner.rates=0.1, 0.2", Outer(name="run", inner=Inner(rates=(0.1, 0.2)))),
        ("inner.rates=()", Outer(name="run", inner=Inner(rates=()))),
        ("inner.pair=(2,z)", Outer(name="run", inner=Inner(pair=(2, "z")))),
        ("inner.mode=exact", Outer(name="run", inner=Inner(mode="exact"))),
    ],
)
def test_an_override_is_read_by_the_type_of_its_field(assignment: str, expected: Outer) -> None:
    assert config_files.override(Outer(name="run"), assignment) == expected


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("inner.widht=3", "did you mean inner.width"),
        ("width=3", "did you mean .*inner.width"),
        ("inner.w=3", "did you mean inner.width"),
        ("nothing_like_it=3", "the fields are inner.mode, inner.pair"),
        ("steps", "expected FIELD=VALUE"),
        ("steps=1.5", "override steps: expected int, got '1.5'"),
        ("on=1", "override on: expected bool, got '1'"),
        ("inner=3", "it is a group of fields; set one of inner.width"),
        ("steps.more=3", "steps has no fields of its own"),
        ("inner.width=0", "override inner.width: width: expected 1 or more, got 0"),
        ("inner.pair=1", "expected tuple"),
        ("limit=much", "override limit: expected"),
    ],
)
def test_an_override_that_cannot_be_meant_is_explained(assignment: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config_files.override(Outer(name="run"), assignment)


def test_an_override_leaves_the_original_alone() -> None:
    config_files.override(CONFIG, "inner.width=9")
    assert CONFIG.inner.width == 8


def test_only_dataclasses_are_configs() -> None:
    with pytest.raises(ValueError, match="expected a dataclass instance, got dict"):
        config_files.to_dict({"a": 1})


def test_an_abbreviation_finds_its_field_the_one_of_its_own_group_first() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Training:
        learning_rate: float = 0.1

    @dataclass(frozen=True, kw_only=True)
    class Run:
        tokenizer_training: Training = field(default_factory=Training)
        training: Training = field(default_factory=Training)

    Run.__annotations__ = {"tokenizer_training": Training, "training": Training}
    with pytest.raises(ValueError, match="did you mean training.learning_rate, tokenizer_training.learn"):
        config_files.override(Run(), "training.lr=1")
