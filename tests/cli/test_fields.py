"""What --fields prints can be given to --set, and no field is without a meaning."""

import re
from dataclasses import dataclass

import pytest

from csm import config as config_files
from csm.cli.fields import attribute_docs, field_lines
from csm.recipes.named import RECIPES

# An entry begins with a noun, its adjective or "Whether"; not with a preposition, pronoun, number or quote.
HEAD = re.compile(
    r"(?!(?:Of|As|From|By|Its|In|For|On|At|With|Where|The same|They|These|That|How|What|Included)\b)[A-Z]"
)


@dataclass(frozen=True, kw_only=True)
class Example:
    """Holds three settings.

    Attributes:
        steps, warmup: Counts that
            end together. rate: Hz of `width` samples.

    Raises:
        ValueError: Not an attribute.
    """

    steps: int = 1
    warmup: int = 2
    rate: float = 3.0
    width: int = 4


def test_entries_of_several_names_and_several_entries_of_a_line_are_read() -> None:
    docs = attribute_docs(Example)
    assert docs["steps"] == docs["warmup"] == "Counts that end together."
    assert docs["rate"] == docs["width"] == "Hz of `width` samples."
    assert set(docs) == {"steps", "warmup", "rate", "width"}


def incomplete(lines: list[str]) -> list[str]:
    """Returns the fields whose text does not stand alone: it begins without a head noun or is another's."""
    names = [line.partition("=")[0] for line in lines[::2]]
    texts = [" ".join(line.split()) for line in lines[1::2]]
    wrong = [name for name, text in zip(names, texts, strict=True) if not HEAD.match(text)]
    owners: dict[tuple[str, str], str] = {}
    for name, text in zip(names, texts, strict=True):
        owner = owners.setdefault((name.rpartition(".")[0], text), name)
        wrong += [name] if owner != name else []
    return wrong


def test_texts_without_a_head_noun_and_shared_texts_are_found() -> None:
    texts = ["Width of a row.", "Of the backbone.", "0 takes the codec's.", '"sum": both.', "Width of a row."]
    lines = [line for i, text in enumerate(texts) for line in (f"model.f{i}=0  (int)", f"    {text}")]
    assert incomplete(lines) == ["model.f1", "model.f2", "model.f3", "model.f4"]
    assert not incomplete([*lines[:2], "data.f0=0  (int)", lines[1]])  # another config may share a text


@pytest.mark.parametrize("name", RECIPES)
def test_every_field_of_a_recipe_is_printed_with_its_meaning_as_set_takes_it(name: str) -> None:
    run = RECIPES[name]()
    lines = list(field_lines(run))
    assignments = [line.rpartition("  (")[0] for line in lines[::2]]
    assert [assignment.partition("=")[0] for assignment in assignments] == config_files.field_names(run)
    assert all(line.startswith("    ") and line.strip() for line in lines[1::2])
    assert not incomplete(lines)
    for assignment in assignments:
        if not assignment.startswith(("training.offload", "tokenizer.")):  # checked against other fields
            assert config_files.override(run, assignment) == run, assignment
