"""Metrics: means over micro-batches and steps, and metrics.jsonl, one JSON line at a time."""

from __future__ import annotations

import json
import math
import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csm.system.files import write_atomically
from csm.system.log import log
from csm.training.distributed import DistributedContext


class MetricAccumulator:
    """Sums of metrics since the last report; they stay on the device until they are read."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, name: str, value: Tensor) -> None:
        """Adds one micro-batch's value of one step, detached, without synchronising the device."""
        value = value.detach().to(torch.float64)
        self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.counts[name] = self.counts.get(name, 0) + 1

    def means(self, distributed: DistributedContext) -> dict[str, float]:
        """Returns the means over all ranks and starts again at 0. Every rank must call this.

        Raises:
            ValueError: The ranks added metrics of different names.
        """
        names = sorted(self.sums)
        mark = zlib.crc32("\n".join(names).encode())
        if distributed.any(mark != distributed.from_first(mark)):
            raise ValueError(
                f"the ranks report different metrics: rank {distributed.rank} has {names}; a task must "
                f"return the same names on every rank"
            )
        if not names:
            return {}
        sums = torch.stack([self.sums[name].to(distributed.device) for name in names])
        counts = torch.tensor(
            [self.counts[name] for name in names], dtype=torch.float64, device=distributed.device
        )
        totals, numbers = distributed.sum(torch.stack([sums, counts])).tolist()
        self.sums, self.counts = {}, {}
        return {name: total / number for name, total, number in zip(names, totals, numbers, strict=True)}

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Returns what a checkpoint keeps between two reports."""
        return {"counts": self.counts}, dict(self.sums)

    def load(self, values: dict[str, Any], tensors: dict[str, Tensor], device: torch.device) -> None:
        """Restores a `state`; an empty one (of another number of ranks) leaves nothing accumulated."""
        self.counts = dict(values.get("counts", {}))
        self.sums = {name: tensor.to(device) for name, tensor in tensors.items()}


class MetricsFile:
    """`metrics.jsonl` of one run, appended to; a resume first drops the lines after the resumed step."""

    def __init__(self, folder: Path, *, after_step: int) -> None:
        self.path = folder / "metrics.jsonl"
        self.lost = 0  # lines that could not be written
        # A run that starts again at step 0 validates there again.
        kept = [line for line in read_metrics(self.path) if 0 < after_step >= line["step"]]
        write_atomically(self.path, "".join(_dump(line) for line in kept))

    def write(self, step: int, split: str, values: Mapping[str, float]) -> None:
        """Appends one line {"step", "split", name: value, ...}; a value that is not finite becomes null."""
        line: dict[str, Any] = {"step": step, "split": split}
        line.update({name: value if math.isfinite(value) else None for name, value in values.items()})
        before = self.path.stat().st_size if self.path.is_file() else 0
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(_dump(line))
        except OSError as error:  # costs the training nothing
            self._leave_out(before, error)

    def _leave_out(self, size: int, error: OSError) -> None:
        """Takes half a line back, and says once that lines are missing."""
        if self.path.is_file():
            os.truncate(self.path, size)
        self.lost += 1
        if self.lost == 1:
            free = shutil.disk_usage(self.path.parent).free
            log.warning(
                "%s takes no more lines (%s; %d bytes are free): the training continues without them",
                *(self.path, error.strerror, free),
            )


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Returns the whole lines of a metrics file, none where there is no file.

    A kill in the middle of a write leaves half a line at the end, whose step is run again. Other lines that
    hold no metrics are left out too, with a warning.
    """
    if not path.is_file():
        return []
    texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    parsed = [_parsed(text) for text in texts]
    if damaged := parsed[:-1].count(None):
        log.warning("%s: %d lines are damaged and left out", path, damaged)
    return [line for line in parsed if line is not None]


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(line, dict) and type(line.get("step")) is int and isinstance(line.get("split"), str)
    return line if whole else None


def _dump(line: Mapping[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
