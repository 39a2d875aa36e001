"""Sequences whose items are read where they are asked for, and the lines of a file as one."""

from __future__ import annotations

import os
from abc import abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class LazySequence(Sequence[T]):
    """A sequence that holds none of its items; equal to every sequence of equal items."""

    @abstractmethod
    def read(self, numbers: Iterable[int]) -> Iterator[T]:
        """Yields the items of some numbers, each from 0 to the length - 1, in the given order."""

    @overload
    def __getitem__(self, number: int) -> T: ...
    @overload
    def __getitem__(self, number: slice) -> tuple[T, ...]: ...
    def __getitem__(self, number: int | slice) -> T | tuple[T, ...]:
        chosen = range(len(self))[number]
        return tuple(self.read(chosen)) if isinstance(chosen, range) else next(self.read([chosen]))

    def __iter__(self) -> Iterator[T]:
        return self.read(range(len(self)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))


def items_of(sequence: Sequence[T], numbers: Iterable[int]) -> Iterator[T]:
    """Yields the items of some numbers of a sequence of any kind."""
    if isinstance(sequence, LazySequence):
        return sequence.read(numbers)
    return (sequence[number] for number in numbers)


class Chosen(LazySequence[T]):
    """Some items of a sequence, read where they are asked for.

    Args:
        sequence: The sequence.
        numbers: int [N], the numbers of the items in it.
    """

    def __init__(self, sequence: Sequence[T], numbers: NDArray[np.integer]) -> None:
        self._sequence, self._numbers = sequence, numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def read(self, numbers: Iterable[int]) -> Iterator[T]:
        return items_of(self._sequence, (int(self._numbers[number]) for number in numbers))


class FileLines(LazySequence[bytes]):
    """The lines of a file; holds where each begins, 8 bytes a line, and keeps no file open.

    Reading raises ValueError where the file is no longer the one that `first_reading` read.

    Args:
        path: Of the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        self._starts = array("q", [0])
        self._state: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self._starts) - 1

    def first_reading(self) -> Iterator[bytes]:
        """Yields the lines in order, each of which can be read from then on."""
        with open(self.path, "rb") as file:
            self._state = _state(file)
            for line in file:
                self._starts.append(self._starts[-1] + len(line))
                yield line

    def read(self, numbers: Iterable[int]) -> Iterator[bytes]:
        with open(self.path, "rb") as file:
            if _state(file) != self._state:
                raise ValueError(
                    f"{self.path} has changed since this process opened it: run the same command again"
                )
            for number in numbers:
                file.seek(self._starts[number])
                yield file.read(self._starts[number + 1] - self._starts[number])


def _state(file: BinaryIO) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns
