"""int8 tables: small errors, the same values when quantized again, zeros stay zeros."""

import pytest
import torch

from csm.int8_tables import dequantize, quantize


@pytest.mark.parametrize("dim", [-1, -2, 0])
def test_quantized_vectors_are_near_and_quantize_to_themselves(dim) -> None:
    vectors = torch.randn(3, 40, 17, generator=torch.Generator().manual_seed(0)) * torch.tensor(
        [[[1e-3]], [[1.0]], [[50.0]]]
    )
    values, scale = quantize(vectors, dim)
    assert values.dtype == torch.int8 and scale.dtype == torch.float16 and scale.shape[dim] == 1
    near = dequantize(values, scale)
    bound = vectors.abs().amax(dim=dim, keepdim=True) / 250 + 1e-7
    assert bool(((near - vectors).abs() <= bound).all())
    assert torch.equal(quantize(near, dim)[0], values)


def test_zeros_stay_zeros() -> None:
    vectors = torch.randn(4, 5)
    vectors[2] = 0
    assert not dequantize(*quantize(vectors, -1))[2].any()
