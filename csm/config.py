"""Configs as nested frozen dataclasses: to and from JSON, and one typed override from the command line."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from csm.system.files import write_atomically

Config = TypeVar("Config")


def to_dict(config: Any) -> dict[str, Any]:
    """Returns a dataclass as plain JSON values: nested dataclasses as dicts, tuples as lists.

    Raises:
        ValueError: `config` is not a dataclass instance.
    """
    if not dataclasses.is_dataclass(config) or isinstance(config, type):
        raise ValueError(f"config: expected a dataclass instance, got {type(config).__name__}")
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def from_dict(cls: type[Config], mapping: Mapping[str, Any]) -> Config:
    """Returns a `cls` from what `to_dict` returned. Fields with a default may be left out.

    Raises:
        ValueError: Unknown fields, missing fields or wrong types; one message lists all of them.
    """
    problems: list[str] = []
    config = _build(cls, mapping, "", problems)
    if problems:
        raise ValueError(f"{cls.__name__} cannot be read:\n" + "\n".join(f"  - {line}" for line in problems))
    return config


def save(config: Any, path: str | Path) -> None:
    """Writes `config` as JSON, whole or not at all."""
    write_atomically(path, json.dumps(to_dict(config), indent=2, ensure_ascii=False) + "\n")


def load(cls: type[Config], path: str | Path) -> Config:
    """Returns a `cls` from a JSON file.

    Raises:
        ValueError: The file is missing, is not JSON, or does not describe a `cls`.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"config: no file {path}; give the path of a saved config")
    try:
        mapping = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"config: {path} is not valid JSON ({error})") from error
    try:
        return from_dict(cls, mapping)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def override(config: Config, assignment: str) -> Config:
    """Returns a copy of `config` with one field changed, as in `override(config, "training.steps=100")`.

    The text is parsed by the field's type: int, float, bool (true/false), str, Literal, tuples (commas),
    and Optional of these (none).

    Raises:
        ValueError: No `=`, an unknown field (similar ones are listed), or a text that its type does not take.
    """
    name, equals, text = assignment.partition("=")
    name = name.strip()
    if not equals or not name:
        raise ValueError(f"override {assignment!r}: expected FIELD=VALUE, for example training.steps=100")
    return _replaced(config, name.split("."), text.strip(), name, config)


def field_names(config: Any, prefix: str = "") -> list[str]:
    """Returns the dotted names of all fields that `override` can set."""
    names: list[str] = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            names += field_names(value, f"{prefix}{field.name}.")
        else:
            names.append(prefix + field.name)
    return names


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return to_dict(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Path):
        return value.as_posix()
    return value


def _build(cls: Any, mapping: Any, prefix: str, problems: list[str]) -> Any:
    if not isinstance(mapping, Mapping):
        problems.append(f"{prefix.rstrip('.') or cls.__name__}: expected a JSON object, got {mapping!r}")
        return None
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls) if field.init}
    before = len(problems)
    for name in mapping:
        if name not in fields:
            problems.append(f"{prefix}{name}: unknown field{_near(name, list(fields))}")
    values = {}
    for name, field in fields.items():
        if name in mapping:
            values[name] = _value(hints[name], mapping[name], prefix + name, problems)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{prefix}{name}: missing, and it has no default")
    if len(problems) > before:
        return None
    try:
        return cls(**values)
    except ValueError as error:
        problems.append(f"{prefix.rstrip('.') or cls.__name__}: {error}")
        return None


def _value(hint: Any, value: Any, name: str, problems: list[str]) -> Any:
    """Checks `value` against `hint`; returns JSON lists as tuples and objects as dataclasses."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, name + ".", problems)
    if origin in (Union, types.UnionType):
        attempts: list[list[str]] = []
        for option in arguments:
            attempts.append([])
            result = _value(option, value, name, attempts[-1])
            if not attempts[-1]:
                return result
        # Of `X | None` the message is about X, not that the value is not None.
        longest = max(attempts, key=len)
        problems.extend(attempts[0] if value is None else longest)
        return None
    if origin is Literal:
        if value in arguments:
            return value
    elif origin in (tuple, list) and isinstance(value, (list, tuple)):
        length = len(value)
        kinds = (
            list(arguments[:1]) * length if origin is list or arguments[-1] is Ellipsis else list(arguments)
        )
        if len(kinds) == length:
            items = [
                _value(kind, item, f"{name}[{i}]", problems)
                for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
            ]
            return origin(items)
    elif origin is dict and isinstance(value, Mapping):
        return {key: _value(arguments[1], item, f"{name}.{key}", problems) for key, item in value.items()}
    elif hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif hint is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    elif hint is Path and isinstance(value, (str, Path)):
        return Path(value)
    elif hint in (bool, str, type(None)) and isinstance(value, hint):
        return value
    problems.append(f"{name}: expected {_type_name(hint)}, got {value!r}")
    return None


def _replaced(config: Any, path: list[str], text: str, name: str, root: Any) -> Any:
    hints = typing.get_type_hints(type(config))
    head, rest = path[0], path[1:]
    if head not in {field.name for field in dataclasses.fields(config)}:
        raise ValueError(f"override {name}: unknown field{_near(name, field_names(root))}")
    value = getattr(config, head)
    if dataclasses.is_dataclass(value):
        if not rest:
            inner = ", ".join(f"{name}.{field}" for field in field_names(value))
            raise ValueError(f"override {name}: it is a group of fields; set one of {inner}")
        new = _replaced(value, rest, text, name, root)
    elif rest:
        raise ValueError(f"override {name}: {head} has no fields of its own{_near(name, field_names(root))}")
    else:
        new = _parse(hints[head], text, name)
    try:
        return dataclasses.replace(config, **{head: new})
    except ValueError as error:
        raise (
            error if str(error).startswith("override ") else ValueError(f"override {name}: {error}")
        ) from error


def _parse(hint: Any, text: str, name: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    wrong = ValueError(f"override {name}: expected {_type_name(hint)}, got {text!r}")
    if origin in (Union, types.UnionType):
        if type(None) in arguments and text.lower() in ("none", "null"):
            return None
        for option in arguments:
            if option is not type(None):
                try:
                    return _parse(option, text, name)
                except ValueError:
                    continue  # the next option of the union may take the text; if none does, `wrong` says so
        raise wrong
    if origin is Literal:
        for option in arguments:
            if text == str(option):
                return option
        raise wrong
    if origin in (tuple, list):
        items = [item.strip() for item in text.strip("()[] ").split(",") if item.strip()]
        kinds = (
            list(arguments[:1]) * len(items)
            if origin is list or arguments[-1] is Ellipsis
            else list(arguments)
        )
        if len(kinds) != len(items):
            raise wrong
        return origin(_parse(kind, item, name) for kind, item in zip(kinds, items, strict=True))
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise wrong
        return text.lower() == "true"
    if hint is str:
        return text
    if hint is Path:
        return Path(text)
    if hint in (int, float):
        try:
            return hint(text)
        except ValueError:
            raise wrong from None
    raise ValueError(
        f"override {name}: a {_type_name(hint)} cannot be set from the command line; use a config file"
    )


def _near(name: str, names: list[str]) -> str:
    likeness = {other: _likeness(name, other) for other in names}
    near = sorted((other for other in names if likeness[other] >= 0.6), key=lambda other: -likeness[other])
    return (
        f"; did you mean {', '.join(near[:4])}?"
        if near
        else f"; the fields are {', '.join(sorted(names)[:40])}"
    )


def _likeness(name: str, other: str) -> float:
    """Likeness of two dotted names' last parts, 0 to 1, and a little for the same group.

    The initials of a field ("lr") and the beginning of one of its words ("warmup") are as good as its name.
    """
    group, _, last = name.rpartition(".")
    other_group, _, other_last = other.rpartition(".")
    words = other_last.split("_")
    short = last == "".join(word[0] for word in words if word) or (len(last) > 2 and last in words)
    likeness = 1.0 if short else difflib.SequenceMatcher(None, last, other_last).ratio()
    return likeness + 0.1 * (likeness >= 0.5 and group == other_group)


def _type_name(hint: Any) -> str:
    return (
        hint.__name__
        if isinstance(hint, type) and not typing.get_args(hint)
        else str(hint).replace("typing.", "")
    )
