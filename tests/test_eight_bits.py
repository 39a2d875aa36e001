"""Eight bits: near enough, the same when rounded again, and zeros stay zeros."""

import pytest
import torch

from csm.eight_bits import restored, rounded


@pytest.mark.parametrize("dim", [-1, -2, 0])
def test_rounding_is_near_and_repeats(dim) -> None:
    vectors = torch.randn(3, 40, 17, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[[1e-3]], [[1.0]], [[50.0]]]
    )
    values, scale = rounded(vectors, dim)
    assert values.dtype == torch.int8 and scale.dtype == torch.float16 and scale.shape[dim] == 1
    near = restored(values, scale)
    bound = vectors.abs().amax(dim=dim, keepdim=True) / 250 + 1e-7
    assert bool(((near - vectors).abs() <= bound).all())
    assert torch.equal(rounded(near, dim)[0], values)


def test_zeros_stay_zeros() -> None:
    vectors = torch.randn(4, 5)
    vectors[2] = 0
    assert not restored(*rounded(vectors, -1))[2].any()
