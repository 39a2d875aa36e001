"""Running sums: what cumsum gives, in additions that CUDA makes in one order."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from csm.network.running_sum import doubling_sum, running_sum
from tests.nondeterministic import RefusesNondeterministic


@pytest.mark.parametrize("size", [0, 1, 2, 3, 31, 32, 33])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_sums_and_gradients_are_those_of_cumsum(size, dim) -> None:
    shape = [3, 4, 5]
    shape[dim] = size
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(size))
    x.requires_grad_()
    torch.testing.assert_close(doubling_sum(x, dim), x.cumsum(dim), atol=1e-13, rtol=0)
    assert torch.autograd.gradcheck(lambda t: doubling_sum(t, dim), x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_are_as_exact_as_additions_one_after_another(dtype) -> None:
    x = torch.randn(32, 4000, generator=torch.Generator().manual_seed(0)).to(dtype)
    exact, found = x.double().cumsum(0), doubling_sum(x, 0)
    one_by_one = x.clone()
    for place in range(1, 32):
        one_by_one[place] += one_by_one[place - 1]
    assert found.dtype == dtype
    assert (found - exact).abs().max() <= (one_by_one - exact).abs().max()


def test_a_cpu_keeps_the_bits_of_cumsum() -> None:
    x = torch.randn(7, 32)
    assert torch.equal(running_sum(x, 1), x.cumsum(1))


def test_cuda_is_not_asked_for_cumsum() -> None:
    with FakeTensorMode(), RefusesNondeterministic():
        x = torch.ones(3, 32, device="cuda")
        assert running_sum(x, 1).shape == x.shape
        with pytest.raises(RuntimeError, match="no deterministic form"):
            x.cumsum(1)
        assert x.long().cumsum(1).shape == x.shape


def test_gradients_ask_for_no_cumsum_either() -> None:
    x = torch.randn(3, 32, requires_grad=True)
    with RefusesNondeterministic():
        doubling_sum(x, 1).square().sum().backward()
    expected = x.detach().clone().requires_grad_()
    expected.cumsum(1).square().sum().backward()
    torch.testing.assert_close(x.grad, expected.grad)
