"""What every step of the GPU day begins with: its arguments, its rows, and packages that may be missing.

A bare machine has torch and triton. `csm` imports more at the top of its files than a step calls: a missing
package is replaced by a module that can be imported, whose names serve as annotations, and whose use raises
ModuleNotFoundError with the package's name. A package that is there is never replaced.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import json
import sys
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

REPLACED = ("jaxtyping", "num2words", "tqdm", "soundfile", "soxr", "safetensors", "gruut")
NO_DEVICE = "no CUDA device"


class _Missing(type):
    """Type of the names of a missing package: any attribute or index exists, no use does."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _name(cls.__module__, f"{cls.__qualname__}.{name}")

    def __getitem__(cls, item: Any) -> Any:
        return cls

    def __call__(cls, *arguments: Any, **options: Any) -> Any:
        raise ModuleNotFoundError(
            f"{cls.__module__}.{cls.__qualname__} was called, and the package {cls.__module__} is missing",
            name=cls.__module__,
        )


def _name(package: str, name: str) -> Any:
    return _Missing(name, (), {"__module__": package, "__qualname__": name})


class _Replacement(types.ModuleType):
    """A module with every name that is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _name(self.__name__.split(".")[0], name)


class _Replacements:
    """Finds what nothing else finds; it stands last in sys.meta_path."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name.split(".")[0] not in REPLACED:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> types.ModuleType:
        return _Replacement(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing is run."""


def replace_missing_packages() -> list[str]:
    """Makes `csm` importable without some of its packages; returns which are missing."""
    missing = [name for name in REPLACED if importlib.util.find_spec(name) is None]
    sys.meta_path.append(_Replacements())  # type: ignore[arg-type]
    return missing


class Rows:
    """The rows of a step, on the disk as soon as they are added."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, name: str, **values: Any) -> None:
        """Appends one row; `gate=` says whether what must hold does."""
        row = {"name": name, **values}
        print(json.dumps(row), flush=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def skip(self, name: str, reason: str) -> None:
        """Appends what was not done, and why."""
        self.add(name, skipped=reason)


def begin(*words: str, arguments: Sequence[str] | None = None) -> tuple[Rows, torch.device, list[str]]:
    """Parses a step's arguments; returns its rows, its device and the values of the positional `words`."""
    parser = argparse.ArgumentParser()
    for word in words:
        parser.add_argument(word)
    parser.add_argument("--rows", type=Path, required=True)
    parsed = parser.parse_args(arguments)
    replace_missing_packages()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Rows(parsed.rows), device, [getattr(parsed, word) for word in words]
