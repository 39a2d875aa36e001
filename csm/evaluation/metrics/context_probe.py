"""Probe of the fit of replies: logistic regression that separates true (turn, reply) pairs from wrong ones.

It is trained on real pairs of the train split, against pairs whose reply is another one of the same speaker,
and tested on other conversations. Where its AUROC there is no better than chance, its scores show nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from csm.evaluation.core.evaluators import NotMeasurable
from csm.evaluation.core.statistics import bootstrap_repeats, interval, seed_for
from csm.evaluation.metrics.logistic import area_under_roc, fit_logistic
from csm.evaluation.metrics.style import STYLE, arousal

Pair = tuple[np.ndarray, np.ndarray]  # standardised styles of a turn and of the reply to it
LabelledPair = tuple[str, str, np.ndarray, np.ndarray]  # conversation, speaker of the reply, both styles


def pair_features(context: np.ndarray, reply: np.ndarray) -> np.ndarray:
    """Computes the probe's inputs [21] from a pair of styles: the reply, products, and distances."""
    return np.concatenate([reply, context * reply, np.abs(context - reply)])


@dataclass(frozen=True, kw_only=True)
class ContextProbe:
    """Logistic regression on `pair_features`.

    Attributes:
        weights, bias: The regression.
        train_pairs: Number of real pairs that it is trained on. held_out_pairs: Number that it is tested on.
        auroc: Area under the ROC curve on held-out pairs, None where they are too few.
        ci95: Its 95 % bootstrap interval over conversations.
    """

    weights: np.ndarray
    bias: float
    train_pairs: int
    auroc: float | None
    held_out_pairs: int
    ci95: list[float] | None = None

    def fit(self, context: np.ndarray, reply: np.ndarray) -> float:
        """Computes the log-odds that this reply follows this turn."""
        return float(pair_features(context, reply) @ self.weights + self.bias)

    @property
    def above_chance(self) -> bool:
        """Whether the interval of its AUROC lies above 0.5."""
        return self.ci95 is not None and self.ci95[0] > 0.5

    @property
    def accuracy(self) -> str:
        """AUROC with its interval and the number of pairs, for readers."""
        if self.auroc is None:
            return f"AUROC not measured on {self.held_out_pairs} held-out real pairs"
        within = "" if self.ci95 is None else f" [{self.ci95[0]:.2f}, {self.ci95[1]:.2f}]"
        return f"AUROC {self.auroc:.2f}{within} on {self.held_out_pairs} held-out real pairs, 0.50 is chance"

    @property
    def evaluator(self) -> str:
        """Name and accuracy, for the report."""
        return f"csm context probe (our own, trained on {self.train_pairs} real pairs; {self.accuracy})"


class LabelledFeatures(NamedTuple):
    """Features [2N, 21], labels [2N] and conversations [2N] of true and wrong pairs."""

    features: np.ndarray
    labels: np.ndarray
    conversations: np.ndarray


def with_negatives(pairs: Sequence[LabelledPair], seed: int) -> LabelledFeatures:
    """Makes features of true pairs and of pairs with another reply of the same speaker.

    A pair whose speaker has no reply in another conversation is left out.
    """
    generator = np.random.default_rng(seed)
    features, labels, conversations = [], [], []
    for conversation, speaker, context, reply in pairs:
        others = [other for where, who, _, other in pairs if who == speaker and where != conversation]
        if others:
            wrong = others[int(generator.integers(len(others)))]
            features += [pair_features(context, reply), pair_features(context, wrong)]
            labels += [1.0, 0.0]
            conversations += [conversation, conversation]
    shape = (len(labels), 3 * len(STYLE))
    return LabelledFeatures(np.array(features).reshape(shape), np.array(labels), np.array(conversations))


def train_probe(
    train: Sequence[LabelledPair],
    held_out: Sequence[LabelledPair],
    *,
    seed: int = 0,
    ridge: float = 10.0,
    repeats: int = 1000,
) -> ContextProbe:
    """Fits the probe and tests it on other conversations.

    Raises:
        NotMeasurable: There are fewer than 20 usable training pairs.
    """
    features, labels, _ = with_negatives(train, seed)
    if len(labels) < 40:
        raise NotMeasurable(
            f"style of replies: the context probe needs 20 real pairs to train on, got {len(labels) // 2}"
        )
    weights, bias = fit_logistic(features, labels, ridge)
    tested = with_negatives(held_out, seed + 1)
    auroc = ci95 = None
    if len(tested.labels) >= 10:
        values = tested.features @ weights
        auroc = area_under_roc(values, tested.labels)
        ci95 = _interval_of_auroc(values, tested, repeats, seed)
    return ContextProbe(
        weights=weights,
        bias=bias,
        train_pairs=len(labels) // 2,
        auroc=auroc,
        held_out_pairs=len(tested.labels) // 2,
        ci95=ci95,
    )


def _interval_of_auroc(
    values: np.ndarray, tested: LabelledFeatures, repeats: int, seed: int
) -> list[float] | None:
    names = sorted(set(tested.conversations.tolist()))
    groups = [np.flatnonzero(tested.conversations == name) for name in names]
    if len(groups) < 2:
        return None

    def auroc(picked: list[np.ndarray]) -> float:
        places = np.concatenate(picked)
        return area_under_roc(values[places], tested.labels[places])

    draws = bootstrap_repeats(groups, auroc, repeats=repeats, seed=seed_for(seed, "context probe"))
    return interval(draws)


def context_swap(probe: ContextProbe, pairs: Sequence[Pair]) -> list[float]:
    """Computes the fit to the true turn minus that to the turn of these pairs whose arousal is most unlike "
    "it."""
    contexts = [context for context, _ in pairs]
    changes = []
    for context, reply in pairs:
        opposite = max(contexts, key=lambda other: abs(arousal(other) - arousal(context)))
        changes.append(probe.fit(context, reply) - probe.fit(opposite, reply))
    return changes
