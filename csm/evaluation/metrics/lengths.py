"""Length of generated speech: over the recording of the same words, and whether it ended in time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from csm.evaluation.core.clips import Clip, ClipSet, ClipSets
from csm.evaluation.core.metric import Measurement, Metric, MetricInfo, Pooled, Score, Scores, failed, scored

NEAR = 0.2  # within a fifth of the recording's length
STOPPED, RAN_ON = 0.5, 1.6  # shares of the recording's length outside which generation went wrong


class Lengths(Metric):
    """Length ratio, its median, the share near the recording's, and the share that did not end in time."""

    def choose(self, sets: ClipSets) -> list[ClipSet]:
        """Returns the generated sets."""
        return [one for one in sets.mono if one.generated]

    def measure(self, clips: ClipSet, recording: ClipSet | None) -> Iterator[Measurement]:
        """Yields the ratios and what follows from them."""
        if recording is None:
            return
        infos = length_infos()
        ratios = [length_ratio(c, real) for c, real in zip(clips.clips, recording.clips, strict=True)]
        yield Scores(info=infos["length_ratio"], scores=ratios)
        yield _median(infos["length_median"], ratios)
        near, wrong = [], []
        for clip, score in zip(clips.clips, ratios, strict=True):
            if score.value is None:
                near.append(score)
                wrong.append(score)
                continue
            near.append(scored(clip, float(abs(score.value - 1.0) <= NEAR)))
            wrong.append(scored(clip, float(cut_off(clip) or not STOPPED <= score.value <= RAN_ON)))
        yield Scores(info=infos["length_near"], scores=near)
        yield Scores(info=infos["ended_wrong"], scores=wrong)


class CutOff(Metric):
    """Share of lines that were cut off, for speech without recordings of the same words."""

    def choose(self, sets: ClipSets) -> list[ClipSet]:
        """Returns the generated sets."""
        return [one for one in sets.mono if one.generated]

    def measure(self, clips: ClipSet, recording: ClipSet | None) -> Iterator[Measurement]:
        """Yields the share."""
        yield Scores(
            info=cut_off_info(),
            scores=[
                failed(clip, clip.reason) if clip.waveform is None else scored(clip, float(cut_off(clip)))
                for clip in clips.clips
            ],
        )


def cut_off(clip: Clip) -> bool:
    """Returns whether a sentence of the clip reached its limit of frames, as its generator recorded."""
    return bool(clip.facts.get("cut_off", False))


def length_ratio(clip: Clip, recording: Clip) -> Score:
    """Scores the seconds of a clip over those of the recording of the same words."""
    if not clip.duration:
        return failed(clip, clip.reason)
    if not recording.duration:
        return failed(clip, f"recording: {recording.reason or 'no audio'}")
    return scored(clip, clip.duration / recording.duration)


def _median(info: MetricInfo, ratios: Sequence[Score]) -> Pooled:
    groups: dict[str, list[float]] = {}
    for score in ratios:
        if score.value is not None:
            groups.setdefault(score.conversation, []).append(score.value)
    return Pooled(
        info=info,
        groups=list(groups.values()),
        statistic=lambda picked: float(np.median([value for group in picked for value in group])),
        n_in=len(ratios),
        failures=Counter(str(score.reason) for score in ratios if score.value is None),
    )


def length_infos() -> dict[str, MetricInfo]:
    """Describes length ratio, median, share near the recording's and share that did not end in time."""
    ratio = "seconds of generated speech / seconds of the recording of the same words"
    over = f"{ratio} is below {STOPPED} or above {RAN_ON}, or a sentence was cut off"
    near = f"{ratio} is {1 - NEAR} to {1 + NEAR}"
    median = f"median of {ratio}"
    recording = "nearer_to_recording"
    rows: list[tuple[str, str, str, str, float | None, str]] = [
        ("length_ratio", "Length over the recording's", "ratio", recording, None, f"{ratio}; 1 is as long"),
        ("length_median", "Median length over the recording's", "ratio", recording, None, median),
        ("length_near", "Length within 20 %", "share of lines", "higher", 0.0, near),
        ("ended_wrong", "Stopped early or ran on", "share of lines", "lower", 1.0, over),
    ]
    return {
        name: MetricInfo(
            name=name,
            title=title,
            area="length",
            unit=unit,
            direction=direction,
            worst=worst,
            definition=definition,
            evaluator="csm.evaluation.metrics.lengths",
        )
        for name, title, unit, direction, worst, definition in rows
    }


def cut_off_info() -> MetricInfo:
    """Describes the share of lines that were cut off."""
    return MetricInfo(
        name="cut_off",
        title="Cut off",
        area="length",
        unit="share of lines",
        direction="lower",
        worst=1.0,
        definition="a sentence of the line reached its limit of frames before its end code",
        evaluator="csm.evaluation.metrics.lengths",
    )
