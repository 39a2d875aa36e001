"""Reduced-rank regression: no map of the same rank leaves less, and rows come sorted and uncorrelated."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from csm.tokenizer.training.reduced_rank import fit_fold


def problem(rank: int, noise: float) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    x = torch.randn(4000, 12, generator=random) @ torch.randn(12, 12, generator=random) + 3
    through = torch.randn(12, rank, generator=random) @ torch.randn(rank, 20, generator=random)
    return x, x @ through + noise * torch.randn(4000, 20, generator=random) - 5


def left(fold: nn.Linear, unfold: nn.Linear, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        rest = (unfold(fold(x)) - y).square().sum()
        return float(rest / (y - y.mean(0)).square().sum())


def test_a_map_of_the_rank_of_the_layers_is_found() -> None:
    x, y = problem(rank=4, noise=0.0)
    fold, unfold = nn.Linear(12, 4), nn.Linear(4, 20)
    said = fit_fold(fold, unfold, x, y)
    assert left(fold, unfold, x, y) < 1e-3
    assert said == pytest.approx(left(fold, unfold, x, y), abs=1e-5)


def test_gradient_descent_finds_nothing_better() -> None:
    x, y = problem(rank=12, noise=2.0)
    fold, unfold = nn.Linear(12, 4), nn.Linear(4, 20)
    fit_fold(fold, unfold, x, y)
    before = left(fold, unfold, x, y)
    optimizer = torch.optim.Adam([*fold.parameters(), *unfold.parameters()], 1e-3)
    for _ in range(300):
        optimizer.zero_grad()
        (unfold(fold(x)) - y).square().mean().backward()
        optimizer.step()
    # The ridge costs less than a hundredth.
    assert left(fold, unfold, x, y) > before - 0.01


def test_rows_are_uncorrelated_and_sorted_by_variance() -> None:
    x, y = problem(rank=12, noise=1.0)
    fold, unfold = nn.Linear(12, 6), nn.Linear(6, 20)
    fit_fold(fold, unfold, x, y)
    with torch.no_grad():
        covariance = torch.cov(fold(x).T)
    variance = covariance.diagonal()
    assert (variance[:-1] >= variance[1:]).all()
    # Up to the ridge.
    assert (covariance - variance.diag()).abs().max() < 0.02 * variance[0]
    assert fold(x).mean(0).abs().max() < 1e-2 * variance[0].sqrt()
