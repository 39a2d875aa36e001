"""Cross-entropy of a linear head in chunks: torch's own values and gradients, without the logits."""

import pytest
import torch
import torch.nn.functional as F

from csm.network import cross_entropy
from csm.network.cross_entropy import Head, linear_cross_entropy
from csm.sequences.target_rows import IGNORE


def problem(groups: int, rows: int, width: int, size: int):
    generator = torch.Generator().manual_seed(rows)
    x = torch.randn(groups, rows, width, generator=generator, dtype=torch.float64)
    heads = torch.randn(groups, width, size, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, size, (groups, rows), generator=generator)
    return x.requires_grad_(), heads.requires_grad_(), targets


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 50, 10**6])
@pytest.mark.parametrize(("groups", "rows"), [(1, 13), (3, 7), (2, 0)])
def test_sums_and_gradients_are_those_of_the_whole_logits(
    groups, rows, chunk, smoothing, together, monkeypatch
):
    monkeypatch.setattr(cross_entropy, "CHUNK", chunk)
    monkeypatch.setattr(cross_entropy, "TOGETHER", together)
    x, heads, targets = problem(groups, rows, 5, 11)
    weights = torch.arange(1.0, groups + 1)
    found = linear_cross_entropy(x, heads, targets, smoothing)
    logits = torch.bmm(x, heads).float()
    expected = torch.stack(
        [
            F.cross_entropy(*one, reduction="sum", label_smoothing=smoothing)
            for one in zip(logits, targets, strict=True)
        ]
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for got, want in zip(
        torch.autograd.grad((found * weights).sum(), (x, heads)),
        torch.autograd.grad((expected * weights).sum(), (x, heads)),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("chunk", [1, 50, 10**6])
def test_rows_whose_target_is_ignored_count_for_nothing(chunk, smoothing, together, monkeypatch):
    monkeypatch.setattr(cross_entropy, "CHUNK", chunk)
    monkeypatch.setattr(cross_entropy, "TOGETHER", together)
    x, heads, targets = problem(3, 9, 5, 11)
    weights = torch.tensor([1.0, 2.0, 3.0])
    kept = 6
    first = linear_cross_entropy(x[:, :kept], heads, targets[:, :kept], smoothing)
    wanted = torch.autograd.grad((first * weights).sum(), (x, heads))
    targets[:, kept:] = IGNORE
    found = linear_cross_entropy(x, heads, targets, smoothing, True)
    gradients = torch.autograd.grad((found * weights).sum(), (x, heads))
    torch.testing.assert_close(found, first, rtol=1e-6, atol=1e-6)
    assert not gradients[0][:, kept:].any()
    for got, want in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-6, atol=1e-7)


def test_float8_products_are_close_to_the_exact_ones():
    x, heads, targets = (t.float().detach().requires_grad_() if t.is_floating_point() else t
                         for t in problem(2, 40, 16, 30))  # fmt: skip
    exact = linear_cross_entropy(x, heads, targets)
    exact_gradients = torch.autograd.grad(exact.sum(), (x, heads))
    found = linear_cross_entropy(x, heads, targets, float8=True)
    torch.testing.assert_close(found, exact, rtol=0.05, atol=0)
    assert not torch.equal(found, exact)
    for got, want in zip(torch.autograd.grad(found.sum(), (x, heads)), exact_gradients, strict=True):
        assert got.dtype == torch.float32
        # e5m2 keeps two bits: 2**-3 at most of each factor.
        assert (got - want).norm() < 0.15 * want.norm()


def test_without_a_gradient_none_is_made(monkeypatch):
    x, heads, targets = problem(1, 9, 4, 6)
    with torch.no_grad():
        found = linear_cross_entropy(x, heads, targets)
    assert not found.requires_grad
    torch.testing.assert_close(found, linear_cross_entropy(x, heads, targets).detach())


def test_under_autocast_products_run_in_its_dtype_and_sums_stay_fp32():
    x, heads, targets = (t.float().detach().requires_grad_() if t.is_floating_point() else t
                         for t in problem(2, 40, 16, 30))  # fmt: skip
    exact = linear_cross_entropy(x, heads, targets)
    exact_gradients = torch.autograd.grad(exact.sum(), (x, heads))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = linear_cross_entropy(x, heads, targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=1e-2, atol=0)
    for got, want in zip(torch.autograd.grad(found.sum(), (x, heads)), exact_gradients, strict=True):
        assert got.dtype == torch.float32
        assert (got - want).norm() < 0.02 * want.norm()


def test_a_head_gives_logits_or_their_cross_entropy():
    torch.manual_seed(0)
    head, x, targets = Head(5, 9, bias=False), torch.randn(7, 5), torch.randint(0, 9, (7,))
    expected = F.cross_entropy(head(x), targets, reduction="sum")
    torch.testing.assert_close(head(x, targets), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ligers_kernel_gives_the_same_sums_and_gradients(smoothing):
    """In Triton's interpreter; on CUDA it takes the place of the chunks."""
    pytest.importorskip("liger_kernel")
    x, heads, targets = (t.float().detach().requires_grad_() if t.is_floating_point() else t
                         for t in problem(2, 9, 16, 37))  # fmt: skip
    weights = torch.tensor([1.0, 3.0])
    found, expected = (
        compute(x, heads, targets, smoothing)
        for compute in (cross_entropy.liger_cross_entropy, linear_cross_entropy)
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    for got, want in zip(
        torch.autograd.grad((found * weights).sum(), (x, heads)),
        torch.autograd.grad((expected * weights).sum(), (x, heads)),
        strict=True,
    ):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)
