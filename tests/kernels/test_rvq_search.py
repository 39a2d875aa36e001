"""rvq_search: exact, lowest index on ties, the same bits for a row wherever it stands."""

import itertools

import pytest
import torch
from torch import Tensor

from csm_kernels import rvq_search


def oracle_scores(residual: Tensor, codebook: Tensor) -> Tensor:
    """0.5 |c|^2 - r . c in float64, every candidate's sum over D in the same order."""
    residual, codebook = residual.double(), codebook.double()
    scores = torch.zeros(len(residual), len(codebook), dtype=torch.float64)
    for d in range(residual.shape[1]):
        c = codebook[:, d]
        scores += 0.5 * c * c - residual[:, d, None] * c
    return scores


def mismatches(x: Tensor, codebooks: Tensor, codes: Tensor) -> int:
    """Codes whose exact score exceeds the best by more than fp32 can tell, levels as the op saw them."""
    wrong, residual = 0, x.clone()
    for level, codebook in enumerate(codebooks):
        scores = oracle_scores(residual, codebook)
        chosen = scores.gather(1, codes[:, level, None]).squeeze(1)
        largest = codebook.norm(dim=1).max().double()
        size = largest * (largest + residual.norm(dim=1).double())
        wrong += int((chosen - scores.amin(1) > (x.shape[1] + 4) * 2.0**-24 * size).sum())
        residual = residual - codebook[codes[:, level]]
    return wrong


def quantizer(levels: int, size: int, width: int, rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shrink = 0.8 ** torch.arange(levels)[:, None, None]
    codebooks = torch.randn(levels, size, width, generator=generator) * shrink
    return torch.randn(rows, width, generator=generator), codebooks


@pytest.mark.parametrize("impl", ["blocked", "reference"])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("width", [1, 8, 64, 192])
@pytest.mark.parametrize(("levels", "size", "rows"), [(1, 7, 45), (8, 64, 33), (3, 1000, 70)])
def test_every_code_is_the_nearest_by_the_fixed_order_oracle(impl, scale, width, levels, size, rows):
    x, codebooks = quantizer(levels, size, width, rows)
    x, codebooks = x * scale, codebooks * scale
    found = rvq_search(x, codebooks, impl=impl)
    assert found.codes.dtype == torch.int64 and found.codes.shape == (rows, levels)
    assert mismatches(x, codebooks, found.codes) == 0
    quantized = sum(codebooks[q][found.codes[:, q]] for q in range(levels))
    torch.testing.assert_close(found.quantized, quantized, rtol=1e-5, atol=1e-5 * scale)
    torch.testing.assert_close(found.residual, x - quantized, rtol=1e-4, atol=1e-5 * scale)


def test_the_oracle_is_met_on_its_own_codewords_on_zero_rows_and_on_neighbours_one_ulp_apart():
    x, codebooks = quantizer(2, 96, 64, 96)
    codebooks[0, 1::2] = torch.nextafter(codebooks[0, ::2], torch.full_like(codebooks[0, ::2], torch.inf))
    for rows in (codebooks[0].clone(), torch.zeros_like(x), x):
        assert mismatches(rows, codebooks, rvq_search(rows, codebooks).codes) == 0


@pytest.mark.parametrize("impl", ["blocked", "reference"])
@pytest.mark.parametrize(("size", "width"), [(64, 8), (130, 64), (1024, 128), (1024, 1)])
def test_of_equal_codewords_the_lowest_index_wins(impl, size, width):
    x, codebooks = quantizer(3, size, width, 100)
    half = size // 2
    codebooks[:, half : 2 * half] = codebooks[:, :half]
    codebooks[:, -1] = codebooks[:, 0]
    assert int(rvq_search(x, codebooks, impl=impl).codes.max()) < half
    assert rvq_search(torch.zeros(4, 8), torch.zeros(3, 70, 8), impl=impl).codes.eq(0).all()


def test_a_rows_bits_do_not_depend_on_batch_order_split_or_threads():
    x, codebooks = quantizer(8, 500, 64, 301)
    whole = rvq_search(x, codebooks)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    shuffled = rvq_search(x[order], codebooks)
    parts = [rvq_search(part, codebooks) for part in x.split([1, 13, 32, 100, 0, 155])]
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    threaded = rvq_search(x, codebooks)
    torch.set_num_threads(before)
    for name in ("codes", "quantized", "residual"):
        expected = getattr(whole, name)
        assert torch.equal(getattr(shuffled, name), expected[order])
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), expected)
        assert torch.equal(getattr(threaded, name), expected)
    assert torch.equal(threaded.commitment, whole.commitment)


def test_commitment_is_the_mean_squared_error_of_each_level_over_real_rows():
    x, codebooks = quantizer(4, 30, 8, 50)
    mask = torch.arange(50) < 37
    for impl, kept in itertools.product(("blocked", "reference"), (None, mask)):
        found = rvq_search(x, codebooks, mask=kept, impl=impl)
        residual, expected = x.double(), []
        for q in range(4):
            residual = residual - codebooks[q][found.codes[:, q]].double()
            expected.append(residual[slice(None) if kept is None else kept].square().mean())
        torch.testing.assert_close(found.commitment.double(), torch.stack(expected), rtol=1e-6, atol=0)


@pytest.mark.parametrize("impl", ["blocked", "reference"])
def test_neither_autocast_nor_reduced_matmul_precision_reaches_the_search(impl):
    x, codebooks = quantizer(8, 256, 64, 64)
    expected = rvq_search(x, codebooks, impl=impl)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = rvq_search(x, codebooks, impl=impl)
    torch.set_float32_matmul_precision("medium")
    try:
        reduced = rvq_search(x, codebooks, impl=impl)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision("highest")
    for found in (cast, reduced):
        assert torch.equal(found.codes, expected.codes) and torch.equal(found.residual, expected.residual)


def test_outputs_carry_no_gradient_and_half_precision_rows_are_read_as_fp32():
    x, codebooks = quantizer(2, 16, 8, 20)
    found = rvq_search(x.bfloat16().requires_grad_(), codebooks.requires_grad_())
    assert not any(t.requires_grad for t in found)
    assert found.quantized.dtype == torch.float32
    assert torch.equal(found.codes, rvq_search(x.bfloat16().float(), codebooks).codes)
    assert rvq_search(x.double(), codebooks.double()).residual.dtype == torch.float64


def test_no_rows_give_empty_results_and_a_commitment_of_zero():
    for impl in ("blocked", "reference"):
        found = rvq_search(torch.zeros(0, 8), torch.zeros(3, 5, 8), impl=impl)
        assert found.codes.shape == (0, 3) and found.quantized.shape == (0, 8)
        assert found.commitment.eq(0).all()


def test_the_operation_passes_opcheck_and_compiles_as_one_graph():
    x, codebooks = quantizer(3, 40, 8, 50)
    for mask in (None, torch.arange(50) < 20):
        torch.library.opcheck(torch.ops.csm.rvq_search.default, (x, codebooks, mask))
    for dynamic in (False, True):
        compiled = torch.compile(
            lambda rows: rvq_search(rows * 2, codebooks), backend="aot_eager", fullgraph=True, dynamic=dynamic
        )
        assert torch.equal(compiled(x).codes, rvq_search(x * 2, codebooks).codes)


@pytest.mark.parametrize(
    ("x", "codebooks", "extra", "said"),
    [
        (torch.zeros(2, 3, 8), torch.zeros(1, 4, 8), {}, "x: expected a float tensor"),
        (torch.zeros(2, 8, dtype=torch.int64), torch.zeros(1, 4, 8), {}, "x: expected a float tensor"),
        (torch.zeros(2, 8), torch.zeros(4, 8), {}, "codebooks: expected"),
        (torch.zeros(2, 8), torch.zeros(1, 0, 8), {}, "codebooks: expected"),
        (torch.zeros(2, 8), torch.zeros(1, 4, 7), {}, "codebooks: width 7"),
        (torch.zeros(2, 8), torch.zeros(1, 4, 8).bfloat16(), {}, "keep codebooks in fp32"),
        (
            torch.zeros(2, 8),
            torch.zeros(1, 4, 8),
            {"mask": torch.zeros(3, dtype=torch.bool)},
            "mask: expected",
        ),
        (torch.zeros(2, 8), torch.zeros(1, 4, 8), {"impl": "fast"}, "impl: expected"),
    ],
)
def test_a_wrong_argument_is_named(x, codebooks, extra, said):
    with pytest.raises(ValueError, match=said):
        rvq_search(x, codebooks, **extra)
