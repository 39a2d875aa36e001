"""Records that are appended one by one and read again, in a temporary file."""

from __future__ import annotations

import pickle
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from csm.data.lazy_sequence import LazySequence
from csm.system.files import full_disk_named

T = TypeVar("T")
# Bytes up to which the file is in memory.
HELD_BYTES = 2**24


class RecordFile(LazySequence[T]):
    """Records that can be pickled; each takes 8 bytes of memory, and its own beyond 16 MB of all together.

    The file has no name: a killed process leaves none. It is for one reader at a time, which may be any
    number of iterations that take turns.

    Args:
        folder: Where the file lies; it need not be there before 16 MB are appended.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._ends = folder, array("q")
        self._file = tempfile.SpooledTemporaryFile(HELD_BYTES, dir=str(folder))

    def __len__(self) -> int:
        return len(self._ends)

    def append(self, record: T) -> None:
        """Appends a record.

        Raises:
            OSError: The disk is full.
        """
        end = self._ends[-1] if self._ends else 0
        content = pickle.dumps(record)
        with full_disk_named(self._folder):
            self._file.seek(end)
            self._file.write(content)
        self._ends.append(end + len(content))

    def read(self, numbers: Iterable[int]) -> Iterator[T]:
        for number in numbers:
            start = self._ends[number - 1] if number else 0
            self._file.seek(start)
            yield pickle.loads(self._file.read(self._ends[number] - start))

    def close(self) -> None:
        """Removes the file; no record can be read any more."""
        self._file.close()
