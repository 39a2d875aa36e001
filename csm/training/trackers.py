"""Where a run's metrics and clips go besides its own files: TensorBoard, trackio or Weights & Biases."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from csm.training.options import TrackerName
from csm.training.samples import Clips


class Tracker(Protocol):
    """What receives the metrics of rank 0."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Records metrics by name."""
        ...

    def clips(self, step: int, clips: Clips) -> None:
        """Records clips to listen to."""
        ...

    def close(self) -> None:
        """Writes what is still buffered."""
        ...


def require_tracker(name: TrackerName) -> None:
    """Checks before anything is loaded that the chosen tracker can be imported.

    Raises:
        ValueError: Its package is not installed.
    """
    if name in ("auto", "none") or importlib.util.find_spec(name) is not None:
        return
    raise ValueError(
        f"training.tracker is {name!r}: expected an installed package; run `pip install {name}`, or set "
        f"training.tracker=none"
    )


def open_tracker(name: TrackerName, output: Path, *, done: int) -> Tracker | None:
    """Returns the tracker of a run, or None; "auto" is TensorBoard where it is installed.

    Args:
        name: Which one.
        output: The run's folder, whose name the run has in the tracker.
        done: Steps before this session; TensorBoard hides what an earlier session wrote after them.
    """
    if name in ("auto", "tensorboard"):
        installed = importlib.util.find_spec("tensorboard") is not None
        return TensorBoard(output / "tensorboard", done=done) if installed else None
    return RunTracker(name, output) if name in ("trackio", "wandb") else None


class TensorBoard:
    """Event files in a folder of the run."""

    def __init__(self, folder: Path, *, done: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder), purge_step=done + 1 if done else 0)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Records metrics by name."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def clips(self, step: int, clips: Clips) -> None:
        """Records clips; they play on the page's tab for audio."""
        for name, (waveform, sample_rate) in clips.items():
            self.writer.add_audio(name, waveform[:1].clamp(-1, 1), step, sample_rate)
        self.writer.flush()

    def close(self) -> None:
        """Writes what is still buffered."""
        self.writer.close()


class RunTracker:
    """trackio or wandb, which share `init`, `log` and `finish`; where data goes is theirs to configure.

    A session of a resumed run is a run of its own there, with the same name.
    """

    def __init__(self, package: str, output: Path) -> None:
        self.module: Any = importlib.import_module(package)
        self.module.init(project="csm", name=output.name)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Records metrics by name."""
        self.module.log(dict(values), step=step)

    def clips(self, step: int, clips: Clips) -> None:
        """Records clips, mono."""
        for name, (waveform, sample_rate) in clips.items():
            self.module.log(
                {name: self.module.Audio(waveform[0].numpy(), sample_rate=sample_rate)}, step=step
            )

    def close(self) -> None:
        """Writes what is still buffered."""
        self.module.finish()
