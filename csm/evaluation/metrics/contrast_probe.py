"""Probes of prosodic contrasts that are known: question and statement by the text, fast and slow by the rate.

A probe is a logistic regression on nine numbers of a clip's prosody, standardised per speaker. It is tested
on speakers that it was not trained on, and used only where its interval lies above chance.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import numpy as np

from csm.data.manifest import Corpus, Turn
from csm.evaluation.core.evaluators import NotMeasurable
from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.core.statistics import bootstrap_repeats, interval, seed_for
from csm.evaluation.metrics.contours import FRAME, QUIET_DB, Contour
from csm.evaluation.metrics.intonation import final_movement, is_polar_question, is_statement
from csm.evaluation.metrics.logistic import area_under_roc, fit_logistic
from csm.evaluation.metrics.style import StyleScale, style
from csm.system.files import hash_key

SYNTHESIS = "synthesis.jsonl"
FAST, SLOW = 1.1, 0.92  # of a speaker's median rate
FOLDS, RIDGE = 5, 3.0
FEWEST = 20  # examples of either side


class Example(NamedTuple):
    """A clip of known contrast: its speaker, the nine numbers [9] of `contrast_numbers`, and 1 or 0."""

    speaker: str
    numbers: np.ndarray
    label: int


def contrast_numbers(shape: Contour, text: str) -> np.ndarray:
    """Computes the style of a clip, its final movement in semitones and letters per second of speech, [9].

    Raises:
        ValueError: The clip has too few voiced frames, or the text no letters.
    """
    letters = sum(map(str.isalnum, text))
    if not letters:
        raise ValueError("the text has no letters")
    speech = FRAME * int((shape.energy > shape.energy.max() - QUIET_DB).sum())
    return np.append(style(shape), [final_movement(shape), letters / speech])


def question_or_statement(turn: Turn) -> int | None:
    """Returns 1 for a yes/no question, 0 for a statement, None for any other text."""
    return 1 if is_polar_question(turn.text) else 0 if is_statement(turn.text) else None


def fast_or_slow(corpus: Corpus) -> Callable[[Turn], int | None]:
    """Returns the labels of synthetic turns by their rate over its speaker's median: 1 from 1.1, 0 to 0.92.

    Where the corpus does not say at which rate its turns were synthesised, no turn has a label.
    """
    path = corpus.root / SYNTHESIS
    if not path.is_file():
        return lambda turn: None
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rates: Mapping[str, float] = {row["turn"]: float(row["speed"]) for row in rows}
    own: dict[str, list[float]] = {}
    for turn in corpus.turns():
        if turn.id in rates:
            own.setdefault(turn.speaker, []).append(rates[turn.id])

    def label(turn: Turn) -> int | None:
        if turn.id not in rates:
            return None
        rate = rates[turn.id] / median(own[turn.speaker])
        return 1 if rate >= FAST else 0 if rate <= SLOW else None

    return label


@dataclass(frozen=True, kw_only=True)
class ContrastProbe:
    """A probe with its accuracy on held-out speakers.

    Attributes:
        name: The contrast, for readers.
        scale: Scale of the numbers, by speaker.
        weights, bias: The regression, trained on all examples.
        auroc: Area under the ROC curve on speakers that were held out, 0.5 is chance.
        ci95: Its 95 % bootstrap interval over speakers; None with fewer than two speakers.
        clips, speakers: Numbers of examples and of speakers.
    """

    name: str
    scale: StyleScale
    weights: np.ndarray
    bias: float
    auroc: float
    ci95: list[float] | None
    clips: int
    speakers: int

    def log_odds(self, shape: Contour, speaker: str, text: str) -> float:
        """Computes the log-odds of the first side of the contrast.

        Raises:
            ValueError: The clip has too few voiced frames, or the text no letters.
        """
        numbers = self.scale.standardised(contrast_numbers(shape, text), speaker)
        return float(numbers @ self.weights + self.bias)

    @property
    def above_chance(self) -> bool:
        """Whether the interval lies above 0.5."""
        return self.ci95 is not None and self.ci95[0] > 0.5

    @property
    def accuracy(self) -> str:
        """AUROC with its interval and the number of clips, for readers."""
        within = "" if self.ci95 is None else f" [{self.ci95[0]:.2f}, {self.ci95[1]:.2f}]"
        return (
            f"AUROC {self.auroc:.2f}{within} on held-out speakers, {self.clips} clips of {self.speakers} "
            f"speakers, 0.50 is chance"
        )


def train_contrast(
    name: str, examples: Sequence[Example], scale: StyleScale, options: RunnerOptions
) -> ContrastProbe:
    """Trains a probe and tests it by cross-validation over speakers.

    Raises:
        NotMeasurable: There are fewer than 20 examples of either side, or of a single speaker.
    """
    labels = np.array([one.label for one in examples])
    speakers = [one.speaker for one in examples]
    sides = int((labels == 1).sum()), int((labels == 0).sum())
    if min(sides) < FEWEST or len(set(speakers)) < 2:
        raise NotMeasurable(
            f"{name}: {sides[0]} and {sides[1]} clips of {len(set(speakers))} speakers; {FEWEST} of either "
            f"side and two speakers are needed"
        )
    features = np.array([scale.standardised(one.numbers, one.speaker) for one in examples])
    held_out = _held_out_values(features, labels, speakers)
    groups = [np.flatnonzero([one == who for one in speakers]) for who in sorted(set(speakers))]

    def auroc(picked: list[np.ndarray]) -> float | None:
        places = np.concatenate(picked)
        both = 0 < labels[places].sum() < len(places)
        return area_under_roc(held_out[places], labels[places]) if both else None

    draws = bootstrap_repeats(groups, auroc, repeats=options.repeats, seed=seed_for(options.seed, name))
    weights, bias = fit_logistic(features, labels, RIDGE)
    return ContrastProbe(
        name=name,
        scale=scale,
        weights=weights,
        bias=bias,
        auroc=area_under_roc(held_out, labels),
        ci95=interval(draws),
        clips=len(examples),
        speakers=len(groups),
    )


def _held_out_values(features: np.ndarray, labels: np.ndarray, speakers: Sequence[str]) -> np.ndarray:
    """Log-odds of each example by a probe that was trained without its speaker."""
    order = sorted(set(speakers), key=hash_key)
    fold = {who: place % min(FOLDS, len(order)) for place, who in enumerate(order)}
    folds = np.array([fold[who] for who in speakers])
    values = np.zeros(len(labels))
    for left_out in sorted(set(fold.values())):
        inside = folds == left_out
        weights, bias = fit_logistic(features[~inside], labels[~inside], RIDGE)
        values[inside] = features[inside] @ weights + bias
    return values
