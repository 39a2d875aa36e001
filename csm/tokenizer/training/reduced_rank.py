"""Reduced-rank regression: the least-squares start of two linear layers with a narrow row between them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

#: Ridge of the regression, as a share of the inputs' mean variance: a few thousand frames fit 1,536 inputs.
RIDGE = 1e-2


@torch.no_grad()
def fit_fold(
    fold: nn.Linear, unfold: nn.Linear, inputs: Float[Tensor, "N X"], targets: Float[Tensor, "N Y"]
) -> float:
    """Sets `unfold(fold(x))` to the map of its rank with the least squared distance from targets, in place.

    Columns of the narrow rows are uncorrelated and sorted by variance. Source: A. J. Izenman, Reduced-rank
    regression for the multivariate linear model, Journal of Multivariate Analysis 5, 1975.

    Args:
        fold: X to C, C at most X and Y.
        unfold: C to Y.
        inputs, targets: Rows that belong together.

    Returns:
        Share of the targets' variance that the map leaves, on these rows.
    """
    x, y = inputs.double(), targets.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    covariance = x.T @ x / len(x)
    ridge = RIDGE * covariance.diagonal().mean() * torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    full = torch.linalg.solve(covariance + ridge, x.T @ y / len(x))
    directions = torch.linalg.eigh(full.T @ covariance @ full).eigenvectors.flip(1)[:, : fold.out_features]
    fold.weight.copy_((full @ directions).T)
    fold.bias.copy_(-(x_mean @ full) @ directions)
    unfold.weight.copy_(directions)
    unfold.bias.copy_(y_mean)
    left = (y - x @ full @ directions @ directions.T).square().sum() / y.square().sum()
    return float(left)
