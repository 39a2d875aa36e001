"""Agreement of two styles."""

import numpy as np
import pytest
import torch

from csm.evaluation.metrics.style import concordance


def test_concordance_of_equal_means_is_that_of_torchmetrics() -> None:
    """Of other means torchmetrics divides variances by N - 1 and the difference of the means by 1."""
    functional = pytest.importorskip("torchmetrics.functional")
    generator = np.random.default_rng(0)
    for share in (0.0, 0.5, 0.9):
        left = generator.normal(size=40)
        right = share * left + 0.3 * generator.normal(size=40)
        right += left.mean() - right.mean()
        expected = functional.concordance_corrcoef(torch.from_numpy(right), torch.from_numpy(left))
        assert concordance(left, right) == pytest.approx(float(expected), abs=1e-6)


def test_what_does_not_vary_has_no_concordance() -> None:
    assert concordance([1.0, 1.0], [1.0, 1.0]) is None and concordance([1.0], [2.0]) is None
