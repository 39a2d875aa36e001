"""rvq_search in Triton: exact, a row's bits the same in any batch and any kernel, no stray writes.

Without a CUDA device the kernels run in Triton's interpreter (tests/conftest.py switches it on).
"""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from csm_kernels.rvq_search import reference

pytest.importorskip("triton")
import triton  # noqa: E402
import triton.language as tl  # noqa: E402

from csm_kernels.rvq_search import triton_kernel  # noqa: E402

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
KERNELS = ("levels", "scan", "split")
GUARD = 64  # elements before and after an output: keeps it at 16 bytes


@pytest.fixture(autouse=True)
def uninitialised_memory_is_nan() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def oracle_scores(residual: Tensor, codebook: Tensor) -> Tensor:
    """0.5 |c|^2 - r . c in float64, every candidate's sum over D in the same order."""
    residual, codebook = residual.double(), codebook.double()
    scores = torch.zeros(len(residual), len(codebook), dtype=torch.float64)
    for d in range(residual.shape[1]):
        c = codebook[:, d]
        scores += 0.5 * c * c - residual[:, d, None] * c
    return scores


def mismatches(x: Tensor, codebooks: Tensor, codes: Tensor) -> int:
    """Codes whose exact score exceeds the best by more than fp32 can tell, levels as the kernel saw them."""
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


def guarded(t: Tensor, value: float) -> tuple[Tensor, Tensor]:
    """A tensor of t's shape filled with value, and the memory it is the middle of."""
    memory = torch.full((t.numel() + 2 * GUARD,), value, dtype=t.dtype, device=t.device)
    return memory[GUARD : GUARD + t.numel()].view(t.shape), memory


def searched(x: Tensor, codebooks: Tensor, kernel: str) -> tuple[Tensor, ...]:
    """codes, quantized, residual and squares of one kernel, on the CPU; nothing is written beside them."""
    width = x.shape[1]
    spare = -width % triton_kernel.ALIGN
    x, codebooks = (torch.nn.functional.pad(t, (0, spare)).to(DEVICE) for t in (x, codebooks))
    x, codebooks = (guarded(t, torch.nan)[0].copy_(t) for t in (x, codebooks))
    blank = [-7 if t.dtype == torch.int64 else torch.nan for t in triton_kernel.allocate(x, codebooks)]
    pairs = [guarded(t, v) for t, v in zip(triton_kernel.allocate(x, codebooks), blank, strict=True)]
    triton_kernel.launch(x, codebooks, *(out for out, _ in pairs), kernel=kernel)
    for (out, memory), value in zip(pairs, blank, strict=True):
        around = torch.cat([memory[:GUARD], memory[GUARD + out.numel() :]])
        assert around.isnan().all() if value != -7 else around.eq(value).all()
    codes, quantized, residual, squares = (out.cpu() for out, _ in pairs)
    assert ((codes >= 0) & (codes < codebooks.shape[1])).all()
    return codes, quantized[:, :width], residual[:, :width], squares


def check(x: Tensor, codebooks: Tensor) -> Tensor:
    """All kernels against the oracle and each other; gives the codes."""
    codes, quantized, residual, squares = results = searched(x, codebooks, "levels")
    for kernel in ("split", "scan"):
        others = searched(x, codebooks, kernel)
        for name, one, other in zip(("codes", "quantized", "residual"), results, others, strict=False):
            assert torch.equal(one, other), f"{name} of {kernel}"
        torch.testing.assert_close(others[3], squares, rtol=1e-13, atol=0)
    assert mismatches(x, codebooks, codes) == 0
    total, left = torch.zeros_like(x), x
    for level, codebook in enumerate(codebooks):
        total, left = total + codebook[codes[:, level]], left - codebook[codes[:, level]]
        torch.testing.assert_close(squares[:, level], left.double().square().sum(1), rtol=1e-12, atol=0)
    assert torch.equal(quantized, total) and torch.equal(residual, left)
    return codes


SHAPES = [(1, 7, 45), (8, 64, 33), (3, 130, 70), (32, 9, 13), (2, 65, 129)]  # levels, codes, rows
WIDTHS = [1, 8, 12, 64, 128, 192]
# Every shape at every width, and every width at other scales.
CASES = [(1.0, width, *shape) for shape in SHAPES for width in WIDTHS]
CASES += [(scale, width, *SHAPES[2]) for scale in (1e-6, 1e6) for width in WIDTHS]


@pytest.mark.parametrize(("scale", "width", "levels", "size", "rows"), CASES)
def test_all_kernels_find_the_oracles_codes_and_each_others_bits(scale, width, levels, size, rows):
    x, codebooks = quantizer(levels, size, width, rows, seed=width)
    check(x * scale, codebooks * scale)


@pytest.mark.parametrize("rows", [1, 2, 64, 65])
def test_rows_at_the_edges_of_a_tile(rows):
    check(*quantizer(2, 64, 16, rows))


@pytest.mark.parametrize("width", [8, 64, 192])
def test_codewords_themselves_zero_rows_and_neighbours_one_ulp_apart(width):
    _, codebooks = quantizer(2, 96, width, 1)
    codebooks[0, 1::2] = torch.nextafter(codebooks[0, ::2], torch.full_like(codebooks[0, ::2], torch.inf))
    for rows in (codebooks[0], torch.zeros(5, width), -codebooks[1]):
        check(rows.clone(), codebooks)


@pytest.mark.parametrize(("size", "width"), [(64, 8), (130, 64), (200, 1), (257, 128)])
def test_of_equal_codewords_the_lowest_index_wins_also_across_tiles_and_programs(size, width):
    x, codebooks = quantizer(3, size, width, 70)
    half = size // 2
    codebooks[:, half : 2 * half] = codebooks[:, :half]
    codebooks[:, -1] = codebooks[:, 0]
    assert int(check(x, codebooks).max()) < half
    assert check(torch.zeros(4, 8), torch.zeros(3, 70, 8)).eq(0).all()
    # An exact 0.0 beside a tiny score of either sign: the order of bits is the order of numbers.
    signed = torch.tensor([[[0.0], [1e-20], [-1e-20], [-0.0]]])
    assert check(torch.zeros(1, 1), signed).item() == 0


@pytest.mark.parametrize(("kernel", "other"), [("levels", "split"), ("split", "scan"), ("scan", "levels")])
@pytest.mark.parametrize("width", [8, 64])
def test_a_rows_bits_do_not_depend_on_batch_order_or_kernel(width, kernel, other):
    x, codebooks = quantizer(4, 150, width, 141)
    whole = searched(x, codebooks, kernel)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    shuffled = searched(x[order], codebooks, kernel)
    parts = [searched(part, codebooks, other) for part in x.split([1, 13, 63, 64])]
    for place in range(3):
        assert torch.equal(shuffled[place], whole[place][order])
        assert torch.equal(torch.cat([part[place] for part in parts]), whole[place])


def test_rows_that_are_not_finite_get_a_code_and_leave_the_others_alone():
    x, codebooks = quantizer(2, 70, 8, 9)
    spoilt = x.clone()
    spoilt[2], spoilt[4, 3], spoilt[5] = torch.nan, torch.inf, -torch.inf
    clean = [row for row in range(9) if row not in (2, 4, 5)]
    found = [searched(spoilt, codebooks, kernel)[0] for kernel in KERNELS]
    for kernel, codes in zip(KERNELS, found, strict=True):
        assert torch.equal(codes[clean], searched(x, codebooks, kernel)[0][clean])
        assert torch.equal(codes, found[0])


@pytest.mark.parametrize("rows", [0, 1, 13])
@pytest.mark.parametrize("width", [5, 8])
def test_the_call_is_the_references_with_and_without_a_mask(rows, width):
    x, codebooks = quantizer(4, 30, width, rows)
    for mask in (None, torch.arange(rows) < 7, torch.zeros(rows, dtype=torch.bool)):
        found = triton_kernel.search(
            x.to(DEVICE), codebooks.to(DEVICE), None if mask is None else mask.to(DEVICE)
        )
        codes, quantized, residual, commitment = (t.cpu() for t in found)
        expected = reference.search(x, codebooks, mask)
        assert codes.dtype == torch.int64 and codes.shape == (rows, 4)
        assert torch.equal(codes, expected[0])
        assert torch.equal(quantized, expected[1]) and torch.equal(residual, expected[2])
        assert quantized.is_contiguous() and residual.is_contiguous()
        torch.testing.assert_close(commitment, expected[3], rtol=1e-6, atol=0)


def test_views_that_begin_off_16_bytes_or_are_transposed_are_read_right():
    x, codebooks = quantizer(2, 40, 8, 20)
    shifted = torch.cat([torch.zeros(1), x.flatten()]).to(DEVICE)[1:].view(20, 8)
    transposed = codebooks.to(DEVICE).transpose(1, 2).contiguous().transpose(1, 2)
    found = triton_kernel.search(shifted, transposed, None)
    for got, want in zip(
        found[:3], triton_kernel.search(x.to(DEVICE), codebooks.to(DEVICE), None), strict=False
    ):
        assert torch.equal(got, want)


def near_ties(width: int, kind: str) -> tuple[Tensor, Tensor]:
    """Rows near two codewords whose fp32 scores differ in their last bits, at several places of the book."""
    generator = torch.Generator().manual_seed(width)
    codebook = torch.randn(200, width, generator=generator)
    pairs = {"one lane": (3, 67), "two lanes": (5, 12), "two parts": (8, 140), "last": (190, 199)}
    one, other = pairs[kind]
    codebook[other] = codebook[one] + 2.0**-20 * torch.randn(width, generator=generator)
    rows = codebook[one] + 0.3 * torch.randn(70, width, generator=generator)
    return rows, codebook[None]


@pytest.mark.parametrize("kind", ["one lane", "two lanes", "two parts", "last"])
@pytest.mark.parametrize("width", [32, 100])
def test_codes_that_a_scan_cannot_tell_apart_are_scored_again(width, kind):
    x, codebooks = near_ties(width, kind)
    codes = check(x, codebooks)
    assert len(codes.unique()) == 2  # which of the two it is changes from row to row


@pytest.mark.parametrize("width", [64, 120, 128])
def test_rows_that_stay_in_shared_memory_have_the_same_codes(width, monkeypatch):
    x, codebooks = quantizer(3, 130, width, 70, seed=width)
    close, (book,) = near_ties(width, "two parts")
    x[:20], codebooks[0] = close[:20], torch.cat([book[:65], book[135:]])
    seen: list[int] = []
    constants = triton_kernel._scan_constants

    def hopper(generation: int, depth: int) -> dict[str, int]:
        found = constants(9, depth)
        seen.append(found["HELD"])
        return found

    monkeypatch.setattr(triton_kernel, "_scan_constants", hopper)
    for got, want in zip(
        searched(x, codebooks, "scan")[:3], searched(x, codebooks, "levels")[:3], strict=True
    ):
        assert torch.equal(got, want)
    assert seen == [128 if width > 112 else width]


@pytest.mark.parametrize("scale", [1e-30, 1e-22, 1e-12, 1e12, 1e19, 3e19])
def test_numbers_near_the_ends_of_fp32_are_scanned_as_they_are_searched(scale):
    x, codebooks = quantizer(2, 70, 32, 20)
    for rows, books in ((x * scale, codebooks * scale), (x * scale, codebooks), (x, codebooks * scale)):
        results = [searched(rows, books, kernel) for kernel in ("levels", "scan")]
        assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(*results, strict=True))


def on_tensor_cores(a: Tensor, b: Tensor, sums: Tensor) -> Tensor:
    """sums + a b as matrix instructions add: 16 products and the sum at once, cut 24 bits below the largest.

    M. Fasi et al., "Numerical behavior of NVIDIA tensor cores", 2021, found no rounding and no further bits.
    """
    for start in range(0, a.shape[1], 16):
        products = a[:, None, start : start + 16].double() * b[None, :, start : start + 16].double()
        terms = torch.cat([products, sums[..., None].double()], dim=-1)
        largest = terms.abs().amax(-1, keepdim=True).clamp(min=1e-300)
        unit = 2.0 ** (largest.log2().floor() - 23)
        total = ((terms / unit).trunc() * unit).sum(-1)
        # The sum itself is cut off too.
        unit = 2.0 ** (total.abs().clamp(min=1e-300).log2().floor() - 23)
        sums = ((total / unit).trunc() * unit).float()
    return sums


def as_pair(t: Tensor) -> tuple[Tensor, Tensor]:
    rounded = t.bfloat16().float()
    return rounded, (t - rounded).bfloat16().float()


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
@pytest.mark.parametrize("width", [32, 128, 512])
def test_scores_of_cores_that_truncate_are_within_the_error_of_a_scan(width, scale):
    generator = torch.Generator().manual_seed(width)
    rows, book = (torch.randn(n, width, generator=generator) for n in (30, 60))
    rows[10:20], book[20:40] = rows[10:20].abs(), book[20:40].abs() * 3.0 ** torch.arange(20)[:, None].neg()
    rows[20:] = book[:10]  # sums without cancellation: every addition rounds at the size of the whole
    rows *= scale
    (r, r_rest), (c, c_rest) = as_pair(rows), as_pair(book)
    sums = torch.zeros(30, 60)
    for start in range(0, width, 16):
        step = slice(start, start + 16)
        sums = on_tensor_cores(r[:, step], c_rest[:, step], sums)
        sums = on_tensor_cores(r_rest[:, step], c[:, step], sums)
    sums = on_tensor_cores(r, c, sums)
    half = 0.5 * book.square().sum(1)
    far = (half - sums).double() - (half.double() - rows.double() @ book.double().T)
    squares, largest = rows.square().sum(1), 2 * half.max()
    error = torch.full((30,), torch.nan)
    store_error[(1,)](squares, largest[None], error, width, 30, SIZE=32)
    assert (far.abs().amax(1) <= 0.9 * error).all()  # the rest is of the fp32 search
    # A bound that holds by being far too wide would score everything again.
    assert scale < 1 or (far.abs().amax(1) >= 2e-4 * error).all()


@triton.jit
def store_error(squares, largest, error, width, rows, SIZE: tl.constexpr):
    place = tl.arange(0, SIZE)
    square = tl.load(squares + place, place < rows, other=0.0)
    found = triton_kernel._scan_error(square, tl.load(largest), width)
    tl.store(error + place, found, place < rows)


def test_many_rows_take_one_launch_and_few_rows_one_a_level(monkeypatch):
    started: list[str] = []

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: tuple[int, ...]) -> "Recorder":
            return self

        def __call__(self, *_: object, **__: object) -> None:
            started.append(self.name)

    for name in ("_lay_out", "_search_levels", "_search_scanned", "_search_split"):
        monkeypatch.setattr(triton_kernel, name, Recorder(name))
    processors = 132  # of an H100
    monkeypatch.setattr(triton_kernel, "processors", lambda device: processors)
    many = triton_kernel.PROGRAMS * processors * triton_kernel.ROWS
    for rows, width, launches in (
        (many, 8, ["_search_levels"]),
        (many, 32, ["_search_scanned"]),
        (many - 1, 8, 8 * ["_search_split"]),
        (many - 1, 32, 8 * ["_search_split"]),
    ):
        started.clear()
        codebooks = torch.zeros(8, 4, width, device=DEVICE)
        triton_kernel.search(torch.zeros(rows, width, device=DEVICE), codebooks, None)
        assert started == ["_lay_out", "_lay_out", *launches]
    monkeypatch.setattr(torch.version, "hip", "6.4")  # whose matrix instructions take fp32
    assert triton_kernel.kernel_for(many, 128, torch.device("cuda")) == "levels"
