"""Logistic regression by Newton's method, which is deterministic, and the area under a ROC curve."""

from __future__ import annotations

import numpy as np

STEPS = 25


def fit_logistic(features: np.ndarray, labels: np.ndarray, ridge: float) -> tuple[np.ndarray, float]:
    """Fits weights [C] and a bias to features [N, C] and labels [N] of 0 and 1.

    Args:
        features, labels: Examples.
        ridge: L2 penalty of the weights.
    """
    design = np.column_stack([features, np.ones(len(features))])
    weights = np.zeros(design.shape[1])
    penalty = np.diag([ridge] * features.shape[1] + [1e-6])
    for _ in range(STEPS):
        chance = 1.0 / (1.0 + np.exp(-np.clip(design @ weights, -30, 30)))
        gradient = design.T @ (chance - labels) + penalty @ weights
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + penalty
        weights = weights - np.linalg.solve(curvature, gradient)
    return weights[:-1], float(weights[-1])


def area_under_roc(values: np.ndarray, labels: np.ndarray) -> float:
    """Computes the share of (true, false) pairs in which the true one scores higher; ties count half."""
    true, false = values[labels == 1], values[labels == 0]
    difference = true[:, None] - false[None, :]
    return float(((difference > 0) + 0.5 * (difference == 0)).mean())
