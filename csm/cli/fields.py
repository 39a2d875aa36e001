"""The fields of a recipe as `--fields` prints them: value, type and meaning, ready for --set."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from typing import Any


def field_lines(config: Any, prefix: str = "") -> Iterator[str]:
    """Yields `name=value  (type)` and the meaning of every field, and those of nested groups."""
    meanings = attribute_docs(type(config))
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from field_lines(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}={assignable(value)}  ({field.type})"
            yield textwrap.fill(
                meanings.get(field.name, ""), 100, initial_indent="    ", subsequent_indent="    "
            )


def assignable(value: Any) -> str:
    """Returns a value as --set takes it."""
    if isinstance(value, (list, tuple)):
        return ",".join(assignable(item) for item in value)
    return value if isinstance(value, str) else json.dumps(value, default=str).replace("null", "none")


def attribute_docs(cls: type) -> dict[str, str]:
    """Returns the meaning of every attribute in the `Attributes:` section of a docstring.

    An entry may have several names, `steps, shards: ...`; after a full stop another entry may begin on the
    same line, `text: Said. rate: Hz.`; and an entry may explain other attributes, named in back-quotes.
    """
    section = re.search(r"^Attributes:\n((?: +.*\n?|\n)*)", inspect.getdoc(cls) or "", re.M)
    if section is None:
        return {}
    names = "|".join(sorted((field.name for field in dataclasses.fields(cls)), key=len, reverse=True))
    entry = re.compile(rf"(?:^|(?<=[.;] ))((?:{names})(?:, (?:{names}))*): ")
    text = re.sub(r"\n {5,}", " ", section[1])
    docs: dict[str, str] = {}
    for line in text.splitlines():
        _, *found = entry.split(line.strip())
        for group, meaning in zip(found[::2], found[1::2], strict=True):
            docs |= dict.fromkeys(group.split(", "), meaning.strip())
    mentioned = {name: meaning for meaning in docs.values() for name in re.findall(r"`(\w+)`", meaning)}
    return mentioned | docs
