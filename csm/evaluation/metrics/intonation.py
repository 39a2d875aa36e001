"""Intonation against the text: final lowering, question rise, pauses where the punctuation asks for them.

Beside each stands a control: the same speech with the texts of other clips. What the control reaches shows
nothing of the text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from csm.evaluation.core.clips import EVALUATION_RATE, Clip, ClipSet
from csm.evaluation.core.evaluators import optional_import, package_version
from csm.evaluation.core.metric import Measurement, Metric, MetricInfo, Pooled, Score, Scores, failed, scored
from csm.evaluation.metrics.contours import FEWEST_VOICED, TOO_UNVOICED, Contour, Contours, pauses

FINAL = 15  # voiced frames: the last 150 ms of voice separate questions from statements best (docs/LOG.md)
WH_WORDS = frozenset("what when where which who whom whose why how".split())
MARKS = re.compile(r"[,;:.!?\u2014\u2026-]+(?=\s)")
NEAR = 0.12  # of the speech: a pause this near to a mark is at it
CONTROL = "another text"


class Intonation(Metric):
    """Final lowering, question rise and pause placement of every set, and of the recording with other texts.

    Args:
        contours: Contours, shared with other metrics.
    """

    def __init__(self, contours: Contours) -> None:
        super().__init__()
        optional_import("parselmouth", package="praat-parselmouth", metric="intonation")
        self.contours, self.infos = contours, {info.name: info for info in intonation_infos()}

    def measure(self, clips: ClipSet, recording: ClipSet | None) -> Iterator[Measurement]:
        """Yields the three measures, and for the recording the same with the texts of other clips."""
        shapes = self.contours.of(clips)
        yield from self._measured(clips.clips, shapes)
        if clips is recording and len(clips.clips) > 1:
            for measured in self._measured(with_other_texts(clips.clips), shapes):
                yield replace(measured, condition=CONTROL)

    def _measured(self, clips: Sequence[Clip], shapes: Sequence[Contour | str]) -> Iterator[Scores | Pooled]:
        pairs = list(zip(clips, shapes, strict=True))
        for name, kind in (("final_lowering", is_statement), ("question_end", is_polar_question)):
            chosen = [(clip, shape) for clip, shape in pairs if kind(clip.text)]
            yield Scores(info=self.infos[name], scores=[_moved(clip, shape) for clip, shape in chosen])
        scores = [_placed(clip, shape) for clip, shape in pairs]
        yield Scores(info=self.infos["pause_placement"], scores=[score for score in scores if score])
        if pooled := self._rise(pairs):
            yield pooled

    def _rise(self, pairs: Sequence[tuple[Clip, Contour | str]]) -> Pooled | None:
        """Question end minus statement end; None where one of them is missing."""
        groups: dict[str, list[tuple[bool, float]]] = {}
        failures: dict[str, int] = {}
        kinds = {False: 0, True: 0}
        for clip, shape in pairs:
            asks = is_polar_question(clip.text)
            if not asks and not is_statement(clip.text):
                continue
            kinds[asks] += 1
            try:
                groups.setdefault(clip.conversation, []).append((asks, final_movement(_shape(shape))))
            except ValueError as error:
                failures[str(error)] = failures.get(str(error), 0) + 1
        if not min(kinds.values()):
            return None
        return Pooled(
            info=self.infos["question_rise"],
            groups=list(groups.values()),
            statistic=question_rise,
            n_in=sum(kinds.values()),
            failures=failures,
        )


def with_other_texts(clips: Sequence[Clip]) -> list[Clip]:
    """Gives every clip the text of another one, half of the list further on."""
    shift = max(1, len(clips) // 2)
    return [replace(clip, text=clips[(place + shift) % len(clips)].text) for place, clip in enumerate(clips)]


def is_polar_question(text: str) -> bool:
    """Whether a text ends as a question that yes or no answers: those with a question word do not rise."""
    last = re.split(r"(?<=[.!?])\s+", text.strip())[-1]
    words = re.findall(r"[a-z']+", last.lower())
    return last.endswith("?") and bool(words) and not any(word in WH_WORDS for word in words[:3])


def is_statement(text: str) -> bool:
    """Whether a text ends with a full stop."""
    return text.strip().endswith(".") and not text.strip().endswith("..")


def final_movement(shape: Contour) -> float:
    """Computes the median pitch of the last 150 ms of voice minus that before it, in semitones.

    Raises:
        ValueError: The clip has too few voiced frames.
    """
    cents = shape.log_f0
    if len(cents) < 2 * FINAL:
        raise ValueError(f"fewer than {2 * FINAL} voiced frames")
    return float(np.median(cents[-FINAL:]) - np.median(cents[:-FINAL])) / 100.0


def question_rise(picked: list[list[tuple[bool, float]]]) -> float | None:
    """Mean final movement of questions minus that of statements; None where there is none of either."""
    ends = [end for group in picked for end in group]
    rises, falls = [m for asks, m in ends if asks], [m for asks, m in ends if not asks]
    return float(np.mean(rises) - np.mean(falls)) if rises and falls else None


class Placement(NamedTuple):
    """Pauses and marks inside a clip, and how many pairs of them lie at one place."""

    pauses: int
    marks: int
    matched: int


def placement(shape: Contour, text: str) -> Placement:
    """Pairs pauses with the marks inside the text.

    A mark's place is the share of the letters before it, a pause's the share of the speech before it, pauses
    not counted: no alignment is needed, and a different rate moves none of them.
    """
    letters = sum(map(str.isalnum, text))
    marks = [
        sum(map(str.isalnum, text[: mark.start()])) / letters
        for mark in MARKS.finditer(text)
        if sum(map(str.isalnum, text[mark.end() :]))
    ]
    places = [pause.place for pause in pauses(shape)]
    free = list(marks)
    matched = 0
    for place in places:
        nearest = min(free, key=lambda mark: abs(mark - place), default=None)
        if nearest is not None and abs(nearest - place) <= NEAR:
            free.remove(nearest)
            matched += 1
    return Placement(len(places), len(marks), matched)


def _shape(shape: Contour | str) -> Contour:
    if isinstance(shape, str):
        raise ValueError(shape)
    return shape


def _moved(clip: Clip, shape: Contour | str) -> Score:
    try:
        return scored(clip, final_movement(_shape(shape)))
    except ValueError as error:
        return failed(clip, str(error))


def _placed(clip: Clip, shape: Contour | str) -> Score | None:
    """Scores 2 matched / (pauses + marks), weighted so that the mean is the F score; None without either."""
    if isinstance(shape, str):
        return failed(clip, shape)
    if shape.voiced.sum() < FEWEST_VOICED:
        return failed(clip, TOO_UNVOICED)
    found = placement(shape, clip.text)
    size = found.pauses + found.marks
    return scored(clip, 2 * found.matched / size, weight=size) if size else None


def intonation_infos() -> Sequence[MetricInfo]:
    """Describes final lowering, question end, question rise and pause placement."""
    shared: dict[str, Any] = {
        "area": "prosody",
        "evaluator": f"praat-parselmouth {package_version('praat-parselmouth')}, 60 to 600 Hz",
        "sample_rate": EVALUATION_RATE,
    }
    moved = "median pitch of the last 0.15 s of voice minus the median before it"
    return (
        MetricInfo(
            name="final_lowering",
            title="Pitch at the end of statements",
            unit="semitones",
            direction="nearer_to_recording",
            definition=f"{moved}; texts that end with a full stop",
            **shared,
        ),
        MetricInfo(
            name="question_end",
            title="Pitch at the end of yes/no questions",
            unit="semitones",
            direction="nearer_to_recording",
            definition=f"{moved}; texts that end with a question mark, without a question word",
            **shared,
        ),
        MetricInfo(
            name="question_rise",
            title="Question rise",
            unit="semitones",
            direction="nearer_to_recording",
            definition=f"{moved}: mean of yes/no questions minus that of statements",
            **shared,
        ),
        MetricInfo(
            name="pause_placement",
            title="Pauses at punctuation",
            unit="F score",
            direction="higher",
            worst=0.0,
            definition="2 x pauses at a mark / (pauses + marks inside the text), pauses of 200 ms or more "
            "within 12 % of the speech of the mark; clips without either are left out",
            **shared,
        ),
    )
