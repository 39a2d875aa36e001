"""Prosodic contrast coherence: a reply is as much of a question, and as fast, as the human reply is.

Nothing here is an emotion: the contrasts are those whose truth is known (`contrast_probe.py`), and a contrast
whose probe is not better than chance on held-out speakers of the corpus is not reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.evaluation.core.clips import EVALUATION_RATE, Clip, ClipSet
from csm.evaluation.core.draws import draw_turns
from csm.evaluation.core.evaluators import NotMeasurable
from csm.evaluation.core.metric import Metric, MetricInfo, Pooled
from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.core.statistics import pairs_by_conversation
from csm.evaluation.metrics.contours import Contour, Contours, contour
from csm.evaluation.metrics.contrast_probe import (
    ContrastProbe,
    Example,
    contrast_numbers,
    fast_or_slow,
    question_or_statement,
    train_contrast,
)
from csm.evaluation.metrics.style import style_scale

QUESTION, RATE = "question against statement", "fast against slow"
CONTROL = "another reply"


class ContrastCoherence(Metric):
    """Correlation of each probe's log-odds of a clip with those of its recording.

    Args:
        contours: Contours, shared with other metrics.
        corpus: Corpus that the probes are trained on; None where there is none.
        options: Seed and repeats of the bootstrap.
        clips: Most clips of either side of a contrast.

    Raises:
        NotMeasurable: The corpus is missing or too small.
    """

    def __init__(
        self, contours: Contours, corpus: Corpus | None, options: RunnerOptions, *, clips: int
    ) -> None:
        super().__init__()
        if corpus is None:
            raise NotMeasurable("prosodic contrast coherence needs the corpus: give --corpus FOLDER")
        self.contours, self.probes = contours, []
        for name, label in ((QUESTION, question_or_statement), (RATE, fast_or_slow(corpus))):
            try:
                probe = trained_probe(name, corpus, label, options, clips)
            except NotMeasurable as error:
                self.missing.append(f"prosodic contrast coherence: {error}")
                continue
            if probe.above_chance:
                self.probes.append(probe)
            else:
                self.missing.append(f"prosodic contrast coherence: {name}: the probe has {probe.accuracy}")

    def measure(self, clips: ClipSet, recording: ClipSet | None) -> Iterator[Pooled]:
        """Yields the correlation of each contrast, and the same with the recordings of other lines."""
        if recording is None or clips is recording:
            return
        own, real = self.contours.of(clips), self.contours.of(recording)
        shift = max(1, len(clips.clips) // 2)
        for probe in self.probes:
            ours = _values(probe, clips.clips, own)
            theirs = _values(probe, recording.clips, real)
            yield _pooled(probe, clips.clips, theirs, ours)
            if len(clips.clips) > 1:
                others = [*theirs[shift:], *theirs[:shift]]
                yield replace(
                    _pooled(probe, clips.clips, others, ours), condition=f"{clips.condition}, {CONTROL}"
                )


def trained_probe(
    name: str,
    corpus: Corpus,
    label: Callable[[Turn], int | None],
    options: RunnerOptions,
    most: int,
) -> ContrastProbe:
    """Draws clips of both sides from the train split and trains a probe; bad clips are left out.

    Raises:
        NotMeasurable: There are too few.
    """
    sides: dict[int, list[Turn]] = {0: [], 1: []}
    for turn in corpus.turns("train"):
        side = label(turn)
        if side is not None:
            sides[side].append(turn)
    drawn = [(side, turn) for side in (0, 1) for turn in draw_turns(sides[side], most, options.seed)]
    examples = []
    for side, turn in drawn:
        try:
            numbers = contrast_numbers(
                contour(read_turn(corpus, turn, EVALUATION_RATE)[0].numpy()), turn.text
            )
        except ValueError:
            continue  # one training example less; no clip is scored here
        examples.append(Example(turn.speaker, numbers, side))
    if not examples:
        raise NotMeasurable(f"{name}: the train split has no clip of either side")
    scale = style_scale([(one.speaker, one.numbers) for one in examples])
    return train_contrast(name, examples, scale, options)


def _values(
    probe: ContrastProbe, clips: Sequence[Clip], shapes: Sequence[Contour | str]
) -> list[float | str]:
    """Log-odds of each clip, or the reason why it has none."""
    values: list[float | str] = []
    for clip, shape in zip(clips, shapes, strict=True):
        try:
            values.append(shape if isinstance(shape, str) else probe.log_odds(shape, clip.speaker, clip.text))
        except ValueError as error:
            values.append(str(error))
    return values


def _pooled(
    probe: ContrastProbe, clips: Sequence[Clip], real: Sequence[float | str], own: Sequence[float | str]
) -> Pooled:
    groups, failures = pairs_by_conversation(clips, real, own)
    info = MetricInfo(
        name=f"contrast_{'question' if probe.name == QUESTION else 'rate'}",
        title=f"Like the recording: {probe.name}",
        area="prosodic style",
        unit="correlation, -1 to 1",
        direction="higher",
        worst=-1.0,
        evaluator=f"csm contrast probe (our own, {probe.name}: {probe.accuracy})",
        definition="correlation of the probe's log-odds of a clip with those of the recording of the same "
        "line; beside it the same with the recordings of other lines",
        sample_rate=EVALUATION_RATE,
    )
    return Pooled(info=info, groups=groups, statistic=correlation, n_in=len(clips), failures=failures)


def correlation(picked: list[list[tuple[float, float]]]) -> float | None:
    """Pearson's correlation of the pairs of a list of groups; None where nothing varies."""
    pairs = np.array([pair for group in picked for pair in group])
    if len(pairs) < 3 or not pairs.std(axis=0).all():
        return None
    return float(np.corrcoef(pairs.T)[0, 1])
