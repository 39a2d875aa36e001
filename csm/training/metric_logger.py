"""What a run says while it trains: one line a report, metrics.jsonl, and the tracker."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from csm.system.host_memory import peak_memory
from csm.system.log import log
from csm.training.distributed import DistributedContext
from csm.training.metrics import MetricsFile, read_metrics
from csm.training.options import TrainingConfig
from csm.training.samples import Clips
from csm.training.trackers import Tracker, open_tracker


class MetricLogger:
    """Reports of rank 0; on the other ranks it does nothing.

    Args:
        output: The run's folder.
        config: Options of the run.
        done: Steps before this session.
        headline: Names of the training metrics in a line, the loss first.
        watched: Name of the validation metric in a line.
        distributed: Ranks of the run.
    """

    def __init__(
        self,
        output: Path,
        config: TrainingConfig,
        done: int,
        *,
        headline: tuple[str, ...],
        watched: str,
        distributed: DistributedContext,
    ) -> None:
        self.title, self.config, self.headline, self.watched = output.name, config, headline, watched
        self.distributed, self.done, self.reported = distributed, done, done
        self.shown = distributed.rank == 0
        self.began = self.report_began = time.monotonic()
        self.validations: dict[int, float] = {}
        self._report: tuple[str, str] | None = None
        if self.shown:
            self.file = MetricsFile(output, after_step=done)
            self.tracker: Tracker | None = open_tracker(config.tracker, output, done=done)
            for line in read_metrics(self.file.path):
                if line["split"] == "validation" and line.get(watched) is not None:
                    self.validations[line["step"]] = line[watched]

    def __enter__(self) -> MetricLogger:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.shown:
            return
        if self.file.lost:
            log.warning("%s lacks %d lines", self.file.path, self.file.lost)
        with self._tracking() as tracker:
            if tracker is not None:
                tracker.close()

    @contextmanager
    def _tracking(self) -> Iterator[Tracker | None]:
        """Yields the tracker, or None; one that fails, as on a full disk, is left out from then on."""
        try:
            yield self.tracker
        except OSError as error:
            self.tracker = None
            log.warning("the tracker %r fails and is left out: %s", self.config.tracker, error)

    def validated(self, step: int, values: Mapping[str, float]) -> None:
        """Records the metrics of a validation."""
        if not self.shown or not values:
            return
        self.file.write(step, "validation", values)
        with self._tracking() as tracker:
            if tracker is not None:
                tracker.scalars(step, {f"validation/{name}": value for name, value in values.items()})
        if self.watched in values:
            self.validations[step] = values[self.watched]
        if step == 0:
            log.info("%s: step 0 of %d, %s", self.title, self.config.steps, self._validation())

    def trained(self, step: int, values: Mapping[str, float], *, learning_rate: float, frames: float) -> None:
        """Records the means since the last report, whose line `show` shows when this step is validated.

        Args:
            step: The last one of the report.
            values: Metrics by name.
            learning_rate: Rate of this step.
            frames: Codec frames of a step on all ranks, the mean of the report.
        """
        if not self.shown:
            return
        self.file.write(step, "train", values)
        now = time.monotonic()
        rate = frames * (step - self.reported) / max(1e-9, now - self.report_began)
        left = (now - self.began) / (step - self.done) * (self.config.steps - step)
        peak = peak_memory(self.distributed.device)
        speed = {"learning_rate": learning_rate, "frames_per_second": rate, "peak_memory_gb": peak / 1e9}
        with self._tracking() as tracker:
            if tracker is not None:
                named = {f"train/{name}": value for name, value in values.items()}
                tracker.scalars(step, named | {f"run/{name}": value for name, value in speed.items()})
        self._report = (
            f"{self.title}: step {step} of {self.config.steps}, {self._losses(values)}",
            f"lr {learning_rate:.2e}, {rate:,.0f} frames/s, {duration(left)} left, "
            f"peak memory {peak / 1e9:.2f} GB",
        )

    def show(self, step: int) -> None:
        """Shows the line of this step's report, if there is one, beside the newest validation."""
        if self._report is None:
            return
        losses, speed = self._report
        log.info("%s, %s, %s", losses, self._validation(), speed)
        self._report = None
        self.reported, self.report_began = step, time.monotonic()

    def clips(self, step: int, clips: Clips) -> None:
        """Hands clips of a validation to the tracker."""
        if not self.shown:
            return
        with self._tracking() as tracker:
            if tracker is not None:
                tracker.clips(step, {f"samples/{name}": clip for name, clip in clips.items()})

    def _losses(self, values: Mapping[str, float]) -> str:
        named = [name for name in self.headline if name in values]
        return ", ".join(f"{name.rpartition('/')[2]} {values[name]:.4g}" for name in named) or "no losses"

    def _validation(self) -> str:
        if not self.validations:
            return "not validated yet"
        newest = max(self.validations)
        text = f"validation {self.validations[newest]:.4g}"
        return f"{text} ({self.validations[0]:.4g} at step 0)" if newest and 0 in self.validations else text


def duration(seconds: float) -> str:
    """Returns "H:MM:SS", without hours where there are none."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
