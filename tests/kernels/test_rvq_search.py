"""rvq_search: exact, lowest index on ties, the same bits for a row wherever it stands."""

import ctypes
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

import csm_kernels
from csm_kernels import native, rvq_search
from csm_kernels.rvq_search import blocked, cpu, reference

Search = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor, Tensor, Tensor]]

COMPILED: dict[str, Search] = {
    name: partial(cpu.search, instruction_set=name) for name in native.instruction_sets()
}
# Those whose bits depend on the row alone; the reference's matrix product may round by the batch.
ROWWISE: dict[str, Search] = {"blocked": blocked.search, **COMPILED}
SEARCHES: dict[str, Search] = {"reference": reference.search, **ROWWISE}
IMPLEMENTATIONS = ["reference", "blocked", *(["cpu"] if COMPILED else [])]

rowwise = pytest.mark.parametrize("search", ROWWISE.values(), ids=ROWWISE)
every = pytest.mark.parametrize("search", SEARCHES.values(), ids=SEARCHES)

FEW_ROWS = 192  # cpu.cpp: from one row more on, threads share rows instead of candidates
WIDTHS = (1, 8, 64, 128, 192, 256, 512)
LEVELS = (1, 8, 32)
KINDS = ("gaussian", "trained", "one ulp apart", "duplicates", "zero residuals", "whole numbers")
CASES = [
    *itertools.product(KINDS, WIDTHS, LEVELS, [1.0]),
    *itertools.product(KINDS[:2], WIDTHS, LEVELS, [1e-6, 1e6]),
]
ROWS, SIZES = (1, 45, 31, 200, 13), (7, 33, 100, 130)  # none a multiple of a tile


@pytest.fixture(autouse=True)
def uninitialised_memory_is_garbage() -> Iterator[None]:
    """torch.empty gives NaN, malloc bytes of 0xFE, which are floats of -1.7e38."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda option, value: 0)
    m_perturb = -6
    mallopt(m_perturb, 1)
    yield
    mallopt(m_perturb, 0)
    torch.use_deterministic_algorithms(False)


def oracle_scores(residual: Tensor, codebook: Tensor) -> Tensor:
    """0.5 |c|^2 - r . c in float64, every candidate's sum over D in the same order."""
    columns, rows = codebook.double().T.contiguous(), residual.double().T.contiguous()
    norms, products = columns.new_zeros(len(codebook)), columns.new_zeros(len(residual), len(codebook))
    for c, r in zip(columns, rows, strict=True):
        norms += 0.5 * c * c
        products.addcmul_(r[:, None], c)
    return norms - products


def mismatches(x: Tensor, codebooks: Tensor, codes: Tensor) -> int:
    """Codes whose exact score exceeds the best by more than fp32 can tell, levels as the op saw them."""
    wrong, residual = 0, x.clone()
    for level, codebook in enumerate(codebooks):
        scores = oracle_scores(residual, codebook)
        chosen = scores.gather(1, codes[:, level, None]).squeeze(1)
        largest = codebook.norm(dim=1).max().double()
        size = largest * (largest + residual.norm(dim=1).double())
        # Half a unit in the last place per operation; below 2^-126 that unit no longer shrinks.
        blind = (x.shape[1] + 4) * (2.0**-24 * size + 2.0**-149)
        wrong += int((chosen - scores.amin(1) > blind).sum())
        residual = residual - codebook[codes[:, level]]
    return wrong


def lowest_indices(x: Tensor, codebooks: Tensor) -> Tensor:
    """Codes of whole numbers, whose scores every order of summation gives exactly: ties are real."""
    codes, residual = [], x.clone()
    for codebook in codebooks:
        codes.append(oracle_scores(residual, codebook).argmin(1))
        residual = residual - codebook[codes[-1]]
    return torch.stack(codes, 1)


def quantizer(levels: int, size: int, width: int, rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shrink = 0.8 ** torch.arange(levels)[:, None, None]
    codebooks = torch.randn(levels, size, width, generator=generator) * shrink
    return torch.randn(rows, width, generator=generator), codebooks


def trained(x: Tensor, codebooks: Tensor, rounds: int = 2) -> Tensor:
    """Codebooks after some rounds of k-means on 300 rows like x, level after level."""
    generator = torch.Generator().manual_seed(9)
    residual, result = torch.randn(300, x.shape[1], generator=generator), []
    for codebook in codebooks:
        centres = residual[torch.randint(300, (len(codebook),), generator=generator)]
        for _ in range(rounds):
            nearest = torch.cdist(residual, centres).argmin(1)
            sums = torch.zeros_like(centres).index_add_(0, nearest, residual)
            counts = nearest.bincount(minlength=len(centres)).clamp(min=1)
            centres = sums / counts[:, None]
        result.append(centres)
        residual = residual - centres[torch.cdist(residual, centres).argmin(1)]
    return torch.stack(result)


def case(kind: str, width: int, levels: int, scale: float) -> tuple[Tensor, Tensor]:
    """x and codebooks of a kind; numbers of rows and codes change from case to case."""
    number = CASES.index((kind, width, levels, scale))
    x, codebooks = quantizer(levels, SIZES[number % 4], width, ROWS[number % 5], seed=number)
    if kind == "trained":
        codebooks = trained(x, codebooks)
    elif kind == "one ulp apart":
        lower = codebooks[:, : codebooks.shape[1] // 2]
        upper = torch.nextafter(lower, torch.full_like(lower, torch.inf))
        codebooks = torch.cat([upper, codebooks[:, 2 * lower.shape[1] :], lower], 1)
        x = codebooks[0].repeat(2, 1)[: len(x)]
    elif kind == "duplicates":
        codebooks = torch.cat([codebooks, codebooks.flip(1)], 1)
    elif kind == "zero residuals":
        x = codebooks[0].repeat(2, 1)[: len(x)].clone()
        x[::3] = 0
        codebooks[1:, ::2] = 0
    elif kind == "whole numbers":
        x, codebooks = (x * 2).round(), (codebooks * 2).round()
    return x * scale, codebooks * scale


@pytest.mark.parametrize(("kind", "width", "levels", "scale"), CASES)
def test_every_code_is_the_nearest_by_the_fixed_order_oracle(kind, width, levels, scale):
    x, codebooks = case(kind, width, levels, scale)
    checked: list[Tensor] = []
    for name, search in SEARCHES.items():
        codes, quantized, residual, _ = search(x, codebooks, None)
        assert codes.dtype == torch.int64 and codes.shape == (len(x), levels), name
        if not any(torch.equal(codes, before) for before in checked):
            assert mismatches(x, codebooks, codes) == 0, name
            checked.append(codes)
        chosen = codebooks[torch.arange(levels), codes]  # [N, Q, D]
        total, left = torch.zeros_like(x), x
        for q in range(levels):
            total, left = total + chosen[:, q], left - chosen[:, q]
        assert torch.equal(quantized, total) and torch.equal(residual, left), name
        if kind == "whole numbers":
            assert torch.equal(codes, lowest_indices(x, codebooks)), name
        if kind == "duplicates" and name != "reference":  # its matrix product may tell equal codes apart
            assert int(codes.max()) < codebooks.shape[1] // 2, name


@rowwise
@pytest.mark.parametrize(("size", "width"), [(64, 8), (130, 64), (1024, 128), (1024, 1)])
@pytest.mark.parametrize("rows", [100, 300])
def test_of_equal_codewords_the_lowest_index_wins(search, size, width, rows):
    x, codebooks = quantizer(3, size, width, rows)
    half = size // 2
    codebooks[:, half : 2 * half] = codebooks[:, :half]
    codebooks[:, -1] = codebooks[:, 0]
    for threads in (1, 3):
        torch.set_num_threads(threads)
        assert int(search(x, codebooks, None)[0].max()) < half
        assert search(torch.zeros(4, 8), torch.zeros(3, 70, 8), None)[0].eq(0).all()


@rowwise
@pytest.mark.parametrize(("size", "width"), [(70, 8), (500, 64), (33, 50)])
def test_a_rows_bits_do_not_depend_on_batch_order_split_or_threads(search, size, width):
    x, codebooks = quantizer(8, size, width, 2 * FEW_ROWS + 60)
    expected = search(x, codebooks, None)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    splits = ([1, 13, FEW_ROWS - 1, 0, 239], [FEW_ROWS, FEW_ROWS + 1, 59], [len(x)])
    for threads, sizes in itertools.product((1, 2, 3, 7), splits):
        torch.set_num_threads(threads)
        parts = [search(part, codebooks, None)[:3] for part in x[order].split(sizes)]
        for found, want in zip(zip(*parts, strict=True), expected, strict=False):
            assert torch.equal(torch.cat(found), want[order]), (threads, sizes)
    assert torch.equal(search(x, codebooks, None)[3], expected[3])


@rowwise
@pytest.mark.parametrize("width", [24, 64])
def test_codes_that_rounding_alone_decides_do_not_depend_on_the_batch(search, width):
    # Codes one or two units in the last place apart: another order of summation would choose others.
    generator = torch.Generator().manual_seed(5)
    nudges = torch.randint(0, 3, (2, 90, width), generator=generator) * 2.0**-23
    codebooks = torch.randn(2, 1, width, generator=generator) * (1 + nudges)
    x = torch.randn(FEW_ROWS + 30, width, generator=generator)
    expected = search(x, codebooks, None)[0]
    assert len(expected.unique()) > 10
    for size in (1, 2, 3, 5, 8, 13, FEW_ROWS):
        rows = x[: 40 if size < FEW_ROWS else None].split(size)
        found = torch.cat([search(part, codebooks, None)[0] for part in rows])
        assert torch.equal(found, expected[: len(found)]), size


@pytest.mark.skipif("avx512" not in COMPILED, reason="this CPU has no AVX-512")
@pytest.mark.parametrize("width", [1, 8, 50, 64, 200])
@pytest.mark.parametrize("rows", [1, 100, 500])
def test_instruction_sets_that_fuse_multiply_and_add_give_the_same_bits(width, rows):
    x, codebooks = quantizer(8, 300, width, rows)
    fused = [COMPILED[name](x, codebooks, None) for name in COMPILED if name != "base"]
    for other in fused[1:]:
        assert all(torch.equal(a, b) for a, b in zip(fused[0], other, strict=True))


@every
def test_commitment_is_the_mean_squared_error_of_each_level_over_real_rows(search):
    for rows, kept in itertools.product((50, 250), (False, True)):
        x, codebooks = quantizer(4, 30, 11, rows)
        mask = torch.arange(rows) < 37 if kept else None
        codes, _, _, commitment = search(x, codebooks, mask)
        residual, expected = x.double(), []
        for q in range(4):
            residual = residual - codebooks[q][codes[:, q]].double()
            expected.append(residual[: 37 if kept else rows].square().mean())
        torch.testing.assert_close(commitment.double(), torch.stack(expected), rtol=1e-6, atol=0)


@every
def test_no_memory_is_read_before_it_is_written_and_inputs_are_left_alone(search):
    for rows in (5, 250):
        x, codebooks = quantizer(3, 37, 19, rows)
        given = x.clone(), codebooks.clone()
        poisoned = search(x, codebooks, None)
        torch.use_deterministic_algorithms(False)  # no filling any more
        clean = search(x, codebooks, None)
        torch.use_deterministic_algorithms(True, warn_only=True)
        assert all(torch.equal(a, b) for a, b in zip(clean, poisoned, strict=True))
        assert torch.equal(x, given[0]) and torch.equal(codebooks, given[1])


@every
def test_strided_rows_and_codebooks_are_read_as_their_copies(search):
    x, codebooks = quantizer(3, 40, 24, 30)
    views = x.T.contiguous().T, codebooks.transpose(1, 2).contiguous().transpose(1, 2)
    for found, want in zip(search(*views, None), search(x, codebooks, None), strict=True):
        torch.testing.assert_close(found, want, rtol=1e-6, atol=1e-6)


@every
def test_a_row_that_is_not_finite_gets_codes_in_range_and_disturbs_no_other(search):
    x, codebooks = quantizer(4, 40, 16, 230)
    expected = search(x, codebooks, None)[0]
    x[7], x[100, 3], x[229, 0] = torch.nan, torch.inf, -torch.inf
    for rows in (x, x[:150]):
        codes = search(rows, codebooks, None)[0]
        assert codes.min() >= 0 and codes.max() < 40
        fine = rows.isfinite().all(1)
        assert torch.equal(codes[fine], expected[: len(rows)][fine])


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
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


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_outputs_carry_no_gradient_and_half_precision_rows_are_read_as_fp32(impl):
    x, codebooks = quantizer(2, 16, 8, 20)
    found = rvq_search(x.bfloat16().requires_grad_(), codebooks.requires_grad_(), impl=impl)
    assert not any(t.requires_grad for t in found)
    assert found.quantized.dtype == torch.float32
    assert torch.equal(found.codes, rvq_search(x.bfloat16().float(), codebooks, impl=impl).codes)


def test_float64_rows_are_searched_in_float64():
    _, codebooks = quantizer(1, 1, 8, 1)
    near = codebooks.double() + torch.tensor([3e-12, 0.0, 1e-12]).double()[:, None]  # one code to fp32
    found = rvq_search(near[0, 1:2], near)
    assert found.residual.dtype == torch.float64 and int(found.codes[0, 0]) == 1


@every
def test_no_rows_give_empty_results_and_a_commitment_of_zero(search):
    codes, quantized, residual, commitment = search(torch.zeros(0, 8), torch.zeros(3, 5, 8), None)
    assert codes.shape == (0, 3) and quantized.shape == residual.shape == (0, 8)
    assert commitment.eq(0).all()


PEAK = """
import resource, torch
from csm_kernels import native
from csm_kernels.rvq_search import blocked, cpu
torch.set_num_threads(1)
x, codebooks = torch.randn(100_000, 8), torch.randn(1, 2048, 8)
sets = native.instruction_sets()[1:]
searches = [lambda *t, name=name: cpu.search(*t, instruction_set=name) for name in sets]
for search in (blocked.search, *searches):
    search(x[:9], codebooks, None)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    search(x, codebooks, None)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_nothing_of_size_rows_times_codes_is_formed():
    path = str(Path(csm_kernels.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", PEAK], cwd=path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    grown = [int(line) / 1024 for line in done.stdout.split()]
    # 9 MB are the outputs and the copy of x; 100,000 x 2048 scores would be 800 MB, one bit each 26 MB.
    assert grown and max(grown) < 24, f"MB: {grown}"


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_the_operation_passes_opcheck_and_compiles_as_one_graph(impl):
    x, codebooks = quantizer(3, 40, 8, 50)
    for mask in (None, torch.arange(50) < 20):
        torch.library.opcheck(torch.ops.csm.rvq_search.default, (x, codebooks, mask, impl))
    for dynamic, chosen in itertools.product((False, True), (impl, "auto")):
        torch._dynamo.reset()
        compiled = torch.compile(
            lambda rows, by=chosen: rvq_search(rows * 2, codebooks, impl=by),
            backend="aot_eager", fullgraph=True, dynamic=dynamic,
        )  # fmt: skip
        for rows in (x, x[:31]):
            found, expected = compiled(rows), rvq_search(rows * 2, codebooks, impl=chosen)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


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
