"""Messages of a run: one logger for the package, and progress that any terminal or log file can show."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TextIO, TypeVar

from tqdm import tqdm

log = logging.getLogger("csm")

Item = TypeVar("Item")


def configure_log(level: int = logging.INFO) -> None:
    """Sends the package's messages to stderr; a command calls this once at its start.

    A library that imports csm without it sees warnings only, as Python's logging has it. Ranks above 0 show
    warnings only, with their number.
    """
    rank = int(os.environ.get("RANK", 0))
    log.handlers = [_StderrHandler(rank)]
    log.setLevel(level if rank == 0 else logging.WARNING)
    log.propagate = False


class _StderrHandler(logging.Handler):
    """Writes each message as one ASCII line to what is `sys.stderr` at that time."""

    def __init__(self, rank: int) -> None:
        super().__init__()
        self.prefix = f"rank {rank}: " if rank else ""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = f"{self.prefix}{record.getMessage()}"
            # tqdm's own writer clears bars that are shown on this stream and draws them again below.
            tqdm.write(text.encode("ascii", "backslashreplace").decode(), file=sys.stderr)
            sys.stderr.flush()
        except Exception:
            self.handleError(record)


class Progress:
    """Counts units of work: a bar in a terminal, else a message for each tenth of the work.

    Attributes:
        done: Units counted so far.
    """

    def __init__(self, title: str, total: int, *, unit: str, stream: TextIO | None = None) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = 0
        stream = sys.stderr if stream is None else stream
        self._bar = None
        if stream.isatty():
            self._bar = tqdm(total=total, desc=title, unit=unit, file=stream, ascii=True, dynamic_ncols=True)

    def update(self, count: int = 1) -> None:
        """Counts `count` more units."""
        tenths = self._tenths()
        self.done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._tenths() > tenths:
            percent = 100 * self.done // self.total
            log.info("%s: %d of %d %ss, %d %%", self.title, self.done, self.total, self.unit, percent)

    def close(self) -> None:
        """Leaves the cursor on a line of its own."""
        if self._bar is not None:
            self._bar.close()

    def _tenths(self) -> int:
        return 10 * self.done // self.total if self.total else 0


@contextmanager
def progress(title: str, total: int, *, unit: str) -> Iterator[Progress]:
    """Yields a `Progress` over `total` units, for work that counts itself."""
    counter = Progress(title, total, unit=unit)
    try:
        yield counter
    finally:
        counter.close()


def progress_of(items: Iterable[Item], title: str, total: int, *, unit: str) -> Iterator[Item]:
    """Yields the items and counts each of them when its turn is over."""
    with progress(title, total, unit=unit) as counter:
        for item in items:
            yield item
            counter.update()
