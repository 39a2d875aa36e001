"""Does a reply carry the feeling that its moment asks for? A probe of our own, and labelled so.

No package carries emotion weights and the corpora carry no emotion labels, so nothing here names an
emotion. A clip's *style* is seven numbers of its prosody, standardised per speaker. Three readings:

* style cosine between a reply and the human reply to the same turn, beside what another reply of
  the same speaker would score;
* concordance of arousal, an index of pitch, pitch range, loudness and tempo;
* a context probe: logistic regression that tells true (turn, reply) pairs of the training split from
  pairs whose reply is another one of the same speaker. Its own AUROC on held-out conversations stands
  in the report: near 0.5 its opinion is worth nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from csm.evaluation.judge import JUDGE_SAMPLE_RATE
from csm.evaluation.prosody import FRAME, Contour
from csm.evaluation.statistics import MetricInfo

STYLE = ("pitch", "pitch_range", "final_rise", "loudness", "loudness_spread", "voiced_share", "tempo")
AROUSAL = (0, 1, 3, 6)  # pitch, pitch range, loudness, tempo rise with arousal (Scherer 2003)
FEWEST_TURNS = 8  # of a speaker, to standardise by the speaker and not by everybody


def style(shape: Contour) -> np.ndarray:
    """Seven prosodic numbers [7] of a clip, named in ``STYLE``.

    Raises:
        ValueError: fewer than 5 voiced frames.
    """
    if shape.voiced.sum() < 5:
        raise ValueError("fewer than 5 voiced frames")
    cents = shape.log_f0
    low, high = np.percentile(cents, [5, 95])
    cut = max(1, (2 * len(cents)) // 3)
    final = cents[cut:] if len(cents[cut:]) else cents
    loud = shape.energy[shape.energy > shape.energy.max() - 40.0]
    starts = int((np.diff(shape.voiced.astype(np.int8)) == 1).sum()) + int(shape.voiced[0])
    return np.array(
        [
            np.median(cents),
            high - low,
            np.median(final) - np.median(cents[:cut]),
            loud.mean(),
            loud.std(),
            shape.voiced.mean(),
            starts / (len(shape.f0) * FRAME),
        ]
    )


@dataclass(frozen=True, kw_only=True)
class StyleScale:
    """Mean and spread of style: of each speaker with enough turns, and of everybody."""

    speakers: dict[str, tuple[np.ndarray, np.ndarray]]
    everybody: tuple[np.ndarray, np.ndarray]

    def standardised(self, values: np.ndarray, speaker: str) -> np.ndarray:
        """Style [7] in standard deviations from what is usual for the speaker, limited to 4."""
        mean, spread = self.speakers.get(speaker, self.everybody)
        return np.clip((values - mean) / spread, -4.0, 4.0)


def style_scale(styles: Sequence[tuple[str, np.ndarray]]) -> StyleScale:
    """The scale from ``(speaker, style [7])`` of training turns.

    Raises:
        ValueError: fewer than ``FEWEST_TURNS`` turns in all.
    """
    if len(styles) < FEWEST_TURNS:
        raise ValueError(f"{len(styles)} training turns; standardising style needs at least {FEWEST_TURNS}")
    values = np.array([value for _, value in styles])
    spread = values.std(axis=0) + 1e-6
    by_speaker: dict[str, list[np.ndarray]] = {}
    for speaker, value in styles:
        by_speaker.setdefault(speaker, []).append(value)
    return StyleScale(
        speakers={
            name: (np.mean(own, axis=0), np.maximum(np.std(own, axis=0), 0.3 * spread))
            for name, own in by_speaker.items()
            if len(own) >= FEWEST_TURNS
        },
        everybody=(values.mean(axis=0), spread),
    )


def cosine(left: np.ndarray, right: np.ndarray) -> float:
    """Cosine of two vectors; NaN where one is zero."""
    size = float(np.linalg.norm(left) * np.linalg.norm(right))
    return float(left @ right) / size if size > 0 else math.nan


def arousal(standardised: np.ndarray) -> float:
    """Mean of standardised pitch, pitch range, loudness and tempo of a style [7]."""
    return float(standardised[list(AROUSAL)].mean())


def concordance(left: Sequence[float], right: Sequence[float]) -> float | None:
    """Concordance correlation coefficient (Lin 1989), -1 to 1; ``None`` where nothing varies."""
    first, second = np.asarray(left, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if len(first) != len(second) or len(first) < 2:
        return None
    below = first.var() + second.var() + (first.mean() - second.mean()) ** 2
    covariance = ((first - first.mean()) * (second - second.mean())).mean()
    return float(2.0 * covariance / below) if below > 0 else None


Pair = tuple[np.ndarray, np.ndarray]  # standardised styles of a turn and of the reply to it


def pair_features(context: np.ndarray, reply: np.ndarray) -> np.ndarray:
    """What the probe sees of a pair of styles: the reply, products, and distances, [21]."""
    return np.concatenate([reply, context * reply, np.abs(context - reply)])


@dataclass(frozen=True, kw_only=True)
class ContextProbe:
    """Logistic regression on :func:`pair_features`; ``auroc`` is its own accuracy, held out."""

    weights: np.ndarray
    bias: float
    train_pairs: int
    auroc: float | None
    held_out_pairs: int

    def fit(self, context: np.ndarray, reply: np.ndarray) -> float:
        """Log-odds that this reply follows this turn."""
        return float(pair_features(context, reply) @ self.weights + self.bias)

    @property
    def evaluator(self) -> str:
        """Name and accuracy, for the report."""
        own = "not measured" if self.auroc is None else f"{self.auroc:.2f}"
        return (
            f"csm context probe (our own, trained on {self.train_pairs} real pairs; AUROC {own} on "
            f"{self.held_out_pairs} held-out real pairs, 0.50 is chance)"
        )


def with_negatives(
    pairs: Sequence[tuple[str, str, np.ndarray, np.ndarray]], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Features [2N, 21] and labels of true pairs and of pairs with another reply of the same speaker.

    Args:
        pairs: (conversation, speaker of the reply, context style, reply style). A pair whose speaker
            has no reply in another conversation is left out.
    """
    generator = np.random.default_rng(seed)
    features, labels = [], []
    for conversation, speaker, context, reply in pairs:
        others = [other for where, who, _, other in pairs if who == speaker and where != conversation]
        if others:
            wrong = others[int(generator.integers(len(others)))]
            features += [pair_features(context, reply), pair_features(context, wrong)]
            labels += [1.0, 0.0]
    return np.array(features).reshape(len(labels), 3 * len(STYLE)), np.array(labels)


def train_probe(
    train: Sequence[tuple[str, str, np.ndarray, np.ndarray]],
    held_out: Sequence[tuple[str, str, np.ndarray, np.ndarray]],
    *,
    seed: int = 0,
    ridge: float = 10.0,
) -> ContextProbe:
    """Fits the probe by Newton's method (deterministic) and measures it on other conversations.

    Raises:
        ValueError: fewer than 20 usable training pairs.
    """
    features, labels = with_negatives(train, seed)
    if len(labels) < 40:
        raise ValueError(f"the context probe needs 20 real pairs to train on, got {len(labels) // 2}")
    design = np.column_stack([features, np.ones(len(features))])
    weights = np.zeros(design.shape[1])
    penalty = np.diag([ridge] * features.shape[1] + [1e-6])
    for _ in range(25):
        chance = 1.0 / (1.0 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (chance - labels) + penalty @ weights
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + penalty
        weights = weights - np.linalg.solve(curvature, gradient)
    other_features, other_labels = with_negatives(held_out, seed + 1)
    auroc = None
    if len(other_labels) >= 10:
        auroc = area_under_roc(other_features @ weights[:-1], other_labels)
    return ContextProbe(
        weights=weights[:-1],
        bias=float(weights[-1]),
        train_pairs=len(labels) // 2,
        auroc=auroc,
        held_out_pairs=len(other_labels) // 2,
    )


def area_under_roc(values: np.ndarray, labels: np.ndarray) -> float:
    """Share of (true, false) pairs in which the true one scores higher; ties count half."""
    true, false = values[labels == 1], values[labels == 0]
    difference = true[:, None] - false[None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())


def context_swap(probe: ContextProbe, pairs: Sequence[Pair]) -> list[float]:
    """Fit to the true turn minus fit to the turn of these pairs whose arousal is most unlike it."""
    contexts = [context for context, _ in pairs]
    changes = []
    for context, reply in pairs:
        opposite = max(contexts, key=lambda other: abs(arousal(other) - arousal(context)))
        changes.append(probe.fit(context, reply) - probe.fit(opposite, reply))
    return changes


def emotion_metrics(probe: str) -> dict[str, MetricInfo]:
    """Style cosine, arousal concordance, context fit and context swap."""
    own = "csm style probe (our own: seven prosodic numbers standardised per speaker; no labels, no accuracy)"
    shared: dict[str, Any] = {"area": "emotion", "direction": "higher", "sample_rate": JUDGE_SAMPLE_RATE}
    return {
        "style_cosine": MetricInfo(
            name="style_cosine",
            title="Style like the human reply",
            unit="cosine, -1 to 1",
            worst=-1.0,
            evaluator=own,
            definition="cosine of the prosodic style of the reply and of the human reply to the same turn; "
            "beside it what another human reply of the same speaker scores",
            **shared,
        ),
        "arousal_concordance": MetricInfo(
            name="arousal_concordance",
            title="Arousal concordance",
            unit="CCC, -1 to 1",
            evaluator=own,
            definition="concordance correlation of the arousal index (pitch, range, loudness, tempo) with "
            "that of the human replies",
            **shared,
        ),
        "context_fit": MetricInfo(
            name="context_fit",
            title="Fit to the previous turn",
            unit="log-odds",
            evaluator=probe,
            definition="log-odds of the probe that this reply follows this turn",
            **shared,
        ),
        "context_swap": MetricInfo(
            name="context_swap",
            title="Loss of fit when the turn before is swapped",
            unit="log-odds",
            evaluator=probe,
            definition="fit to the true previous turn minus fit to the one of most unlike arousal; the "
            "reply is not generated anew",
            **shared,
        ),
    }
