"""Trials of speaker verification: pairs of clips, and the equal error rate of scores on them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np


class Trials(NamedTuple):
    """Pairs of clips, N of them.

    Attributes:
        left, right: Indices of the two clips, int64 [N].
        same: Whether one voice speaks both, bool [N].
        weight: Weight of the pair, float64 [N]: every voice counts alike among the same, every pair of voices
            among the others.
    """

    left: np.ndarray
    right: np.ndarray
    same: np.ndarray
    weight: np.ndarray


def draw_trials(speakers: Sequence[str], *, trials: int = 3600, seed: int = 0) -> Trials:
    """Draws pairs of clips, half of one voice and half of two, no pair twice, spread evenly over the voices.

    Args:
        speakers: Speaker of each clip.
        trials: Most pairs; a voice with few clips has fewer pairs, which then count more.
        seed: Seed of the draw.

    Raises:
        ValueError: There are fewer than two voices with two clips each.
    """
    names = sorted(set(speakers))
    places = {name: [i for i, other in enumerate(speakers) if other == name] for name in names}
    kinds = {(name, name): list(combinations(places[name], 2)) for name in names if len(places[name]) > 1}
    if len(kinds) < 2:
        raise ValueError(
            f"{len(kinds)} voices with two clips or more among {len(speakers)} clips: expected two voices at "
            f"least; name other speakers or lower `shortest`"
        )
    ones = len(kinds)
    for first, second in combinations(names, 2):
        kinds[first, second] = [(a, b) for a in places[first] for b in places[second]]
    generator = np.random.default_rng(seed)
    rows = []
    for (first, second), pairs in kinds.items():
        share = ones if first == second else len(kinds) - ones
        count = min(len(pairs), max(1, trials // 2 // share))
        chosen = generator.choice(len(pairs), size=count, replace=False)
        rows += [(*pairs[i], first == second, 1.0 / (share * count)) for i in chosen]
    left, right, same, weight = (np.array(column) for column in zip(*rows, strict=True))
    return Trials(left, right, same, weight)


def equal_error_rate(scores: np.ndarray, same: np.ndarray, weight: np.ndarray | None = None) -> float:
    """Computes the error at the threshold where false rejections are as frequent as false acceptances.

    Between two thresholds the rates are joined by a line; equal scores fall on the same side, so that a
    constant score has 0.5 and not 0.

    Args:
        scores: Scores [N], higher where the voices sound alike.
        same: Whether one voice speaks both, bool [N].
        weight: Weights of the pairs [N], not negative; None for equal ones.

    Returns:
        0 where a threshold separates them, 0.5 for guessing, 1 where all are the wrong way round.

    Raises:
        ValueError: A score is not finite, or all pairs are of one kind.
    """
    weight = np.ones(len(scores)) if weight is None else weight
    if not np.isfinite(scores).all():
        raise ValueError("a score is not a number: leave out the clips that could not be embedded")
    if not (weight[same].sum() > 0 and weight[~same].sum() > 0):
        raise ValueError("expected pairs of one voice and pairs of two, got one kind only")
    order = np.argsort(scores, kind="stable")
    last = np.append(np.diff(scores[order]) > 0, True)
    below = [np.cumsum(np.where(kind, weight, 0.0)[order])[last] for kind in (same, ~same)]
    missed, refused = (np.concatenate([[0.0], part / part[-1]]) for part in below)
    excess = missed - (1.0 - refused)
    after = int(np.argmax(excess >= 0))
    step = -excess[after - 1] / (excess[after] - excess[after - 1])
    return float(missed[after - 1] + step * (missed[after] - missed[after - 1]))
