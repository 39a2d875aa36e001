"""What --fields prints can be given to --set, and no field is without a meaning."""

from dataclasses import dataclass

import pytest

from csm import config as config_files
from csm.cli.fields import attribute_docs, field_lines
from csm.recipes.named import RECIPES


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


@pytest.mark.parametrize("name", RECIPES)
def test_every_field_of_a_recipe_is_printed_with_its_meaning_as_set_takes_it(name: str) -> None:
    run = RECIPES[name]()
    lines = list(field_lines(run))
    assignments = [line.rpartition("  (")[0] for line in lines[::2]]
    assert [assignment.partition("=")[0] for assignment in assignments] == config_files.field_names(run)
    assert all(line.startswith("    ") and line.strip() for line in lines[1::2])
    for assignment in assignments:
        if not assignment.startswith(("training.offload", "tokenizer.")):  # checked against other fields
            assert config_files.override(run, assignment) == run, assignment
