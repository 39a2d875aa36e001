"""Metrics: means over micro-batches and steps, one JSON line at a time, TensorBoard where it is installed."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
import time
import zlib
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor

from csm.system.files import write_atomically
from csm.training.distributed import DistributedContext


class Window:
    """Sums of losses since the last line of metrics; they stay on the device until they are wanted."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, name: str, value: Tensor) -> None:
        """Add one micro-batch's value of one step, detached, without synchronising the device."""
        value = value.detach().to(torch.float64)
        self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.counts[name] = self.counts.get(name, 0) + 1

    def means(self, distributed: DistributedContext) -> dict[str, float]:
        """Return the means over all ranks and empty the window. Every rank must call this.

        Raises:
            ValueError: the ranks named different losses.
        """
        names = sorted(self.sums)
        mark = zlib.crc32("\n".join(names).encode())
        if distributed.any(mark != distributed.from_first(mark)):
            raise ValueError(f"the ranks report different losses; rank {distributed.rank} has {names}")
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
        """Return what a checkpoint keeps of an open window."""
        return {"counts": self.counts}, dict(self.sums)

    def load(self, values: dict[str, Any], tensors: dict[str, Tensor], device: torch.device) -> None:
        """Restore `state`; an empty one (another number of ranks) leaves the window empty."""
        self.counts = dict(values.get("counts", {}))
        self.sums = {name: tensor.to(device) for name, tensor in tensors.items()}


class MetricsFile:
    """`metrics.jsonl` of one run, appended to; a resume first drops the lines after the resumed step."""

    def __init__(self, folder: Path, *, after_step: int) -> None:
        self.path = folder / "metrics.jsonl"
        kept = [line for line in read_metrics(self.path) if line["step"] <= after_step]
        write_atomically(self.path, "".join(_dump(line) for line in kept))
        self.board = _tensorboard(folder / "tensorboard", purge_step=after_step + 1)

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Append one line {"step", "split", name: value, ...}; values that are not finite become null."""
        line: dict[str, Any] = {"step": step, "split": split}
        line.update({name: value if math.isfinite(value) else None for name, value in values.items()})
        with self.path.open("a", encoding="utf-8") as file:
            file.write(_dump(line))
        if self.board is not None:
            for name, value in values.items():
                self.board.add_scalar(f"{split}/{name}", value, step)

    def close(self) -> None:
        """Flush TensorBoard's file."""
        if self.board is not None:
            self.board.close()


class Report:
    """What rank 0 shows and writes while training; on the other ranks it does nothing."""

    def __init__(self, output: Path, steps: int, done: int, *, shown: bool) -> None:
        self.file = MetricsFile(output, after_step=done) if shown else None
        self.progress = Progress(output.name, steps=steps, done=done, shown=shown)

    def __enter__(self) -> Report:
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.close()
        if self.file is not None:
            self.file.close()

    def write(self, step: int, split: str, values: dict[str, float]) -> None:
        """Write one line of metrics; the losses go beside the progress bar."""
        if self.file is not None and values:
            self.file.write(step, split, values)
        if split == "train":
            losses = [(key, value) for key, value in values.items() if key.endswith("/loss")]
            self.progress.note = " ".join(f"{key} {value:.4g}" for key, value in losses)

    def advance(self) -> None:
        """Count one step."""
        self.progress.advance()


class Progress:
    """Progress on rank 0: a bar in a terminal (ASCII where it has no UTF-8), else a line now and then."""

    def __init__(
        self, title: str, *, steps: int, done: int, shown: bool, stream: TextIO = sys.stderr
    ) -> None:
        self.title, self.steps, self.done, self.stream = title, steps, done, stream
        self.shown, self.note, self.spoken = shown, "", time.monotonic()
        self.bar = None
        if shown and stream.isatty() and importlib.util.find_spec("tqdm"):
            from tqdm import tqdm

            self.bar = tqdm(total=steps, initial=done, desc=title, unit="step", file=stream, mininterval=0.5)

    def advance(self) -> None:
        """Count one step and show `note` beside it."""
        self.done += 1
        if self.bar is not None:
            self.bar.set_postfix_str(self.note, refresh=False)
            self.bar.update()
        # Twenty seconds: a log file of a run of minutes stays a page long.
        elif self.shown and (self.done == self.steps or time.monotonic() - self.spoken > 20):
            self.spoken = time.monotonic()
            print(f"{self.title}: step {self.done}/{self.steps} {self.note}", file=self.stream, flush=True)

    def close(self) -> None:
        """Leave the cursor on a line of its own."""
        if self.bar is not None:
            self.bar.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the whole lines of a metrics file, none where there is no file."""
    if not path.is_file():
        return []
    lines = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue  # a kill in the middle of a write leaves half a line; its step is run again
    return lines


def _dump(line: dict[str, Any]) -> str:
    return json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"


def _tensorboard(folder: Path, *, purge_step: int) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=purge_step)
