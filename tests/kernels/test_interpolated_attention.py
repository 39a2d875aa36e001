"""interpolated_attention: F.interpolate, mask and softmax, for packed sequences of any two lengths."""

import ctypes
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

import csm_kernels
from csm_kernels import interpolated_attention, native
from csm_kernels.interpolated_attention import blocked, cpu

# attend and attend_backward of everything that computes in fp32 here.
KERNELS: dict[str, tuple[Callable, Callable]] = {
    "blocked": (blocked.attend, blocked.attend_backward),
    **{
        name: tuple(partial(f, instruction_set=name) for f in (cpu.attend, cpu.attend_backward))
        for name in native.instruction_sets()
    },
}
IMPLEMENTATIONS = ["reference", "blocked", *(["cpu"] if len(KERNELS) > 1 else [])]
every = pytest.mark.parametrize("kernel", KERNELS.values(), ids=KERNELS)

UNIT = 2.0**-23  # in the last place of 1.0

QUERIES = [5, 1, 0, 70, 7, 3]
KEYS = [3, 1, 2, 50, 0, 9]  # a sequence without queries, one without keys, one with more keys than queries
LENGTHS = [9, 4, 3, 140, 5, 0]
OFFSETS = [0, 3, 1, 70, 2, 0]


def bounds(counts: list[int]) -> Tensor:
    return torch.tensor([0, *counts]).cumsum(0)


def packed(
    queries: list[int], keys: list[int], heads: int = 2, width: int = 4, dtype=torch.float64, scale=1.0
):
    """q, k, v of standard normals and the keyword arguments that say how they are packed."""
    generator = torch.Generator().manual_seed(len(queries))
    q, k, v = (
        torch.randn(sum(counts), heads, width, generator=generator, dtype=torch.float64).mul(scale).to(dtype)
        for counts in (queries, keys, keys)
    )
    qkv = tuple(t.requires_grad_() for t in (q, k, v))
    return qkv, {"cu_seqlens_q": bounds(queries), "cu_seqlens_k": bounds(keys)}


def values_and_gradients(qkv, arguments: dict, **options: object) -> list[Tensor]:
    output = interpolated_attention(*qkv, **arguments, **options)
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view(output.shape)
    return [output, *torch.autograd.grad((output.double() * weights).sum(), qkv, materialize_grads=True)]


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


def layout(
    queries: list[int],
    keys: list[int],
    lengths: list[int] | None = None,
    offsets: list[int] | None = None,
    window: int | None = None,
    scale: float = 1.0,
) -> tuple:
    """What follows q, k and v in a call of a kernel."""
    return (
        *(bounds(queries), bounds(keys), torch.tensor(lengths or queries)),
        *(torch.tensor(offsets or [0] * len(queries)), window, scale),
    )


def computed(kernel, qkv, where: tuple) -> list[Tensor]:
    """Output, logarithms of sums, and the gradients of q, k and v by a kernel called directly."""
    attend, attend_backward = kernel
    with torch.no_grad():
        output, lse = attend(*qkv, *where)
        weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view(output.shape)
        return [output, lse, *attend_backward(weights.to(output.dtype), output, lse, *qkv, *where)]


def by_reference(qkv, where: tuple) -> list[Tensor]:
    """The same by the reference, in the dtype of q; no logarithms."""
    ends_q, ends_k, lengths, offsets, window, scale = where
    arguments = {"cu_seqlens_q": ends_q, "cu_seqlens_k": ends_k, "lengths": lengths, "query_offsets": offsets}
    leaves = tuple(t.detach().requires_grad_() for t in qkv)
    return values_and_gradients(leaves, arguments, window=window, scale=scale, impl="reference")


class Expected(NamedTuple):
    """Results of the reference and logarithms of the blocked implementation, in float64 and as computed."""

    wide: tuple[Tensor, ...]
    exact: list[Tensor]
    own: list[Tensor]
    exact_lse: Tensor
    own_lse: Tensor


_LAST: dict[tuple, Expected] = {}


def expectations(qkv, where: tuple) -> Expected:
    """What all kernels are compared with, one after the other: kept for the last few inputs."""
    bits = tuple((t.dtype, t.shape, t.detach().numpy().tobytes()) for t in (*qkv, *where[:4]))
    key = (*bits, *where[4:])
    if key not in _LAST:
        if len(_LAST) == 8:
            _LAST.clear()
        wide = tuple(t.detach().double() for t in qkv)
        exact, own = by_reference(wide, where), by_reference(qkv, where)
        lse = (computed(KERNELS["blocked"], tensors, where)[1] for tensors in (wide, qkv))
        _LAST[key] = Expected(wide, exact, own, *lse)
    return _LAST[key]


def assert_as_exact_as_the_reference(kernel, qkv, where: tuple, *, gradients: bool = True) -> None:
    """No norm of an error exceeds 1.5 times the fp32 reference's own, or, if that is less, rounding itself.

    The reference may be exact by chance (one position seen, equal keys, lengths whose ratio is exact), and
    its rounding errors at the positions of a run are independent, ours is one: there a unit in the last
    place of the largest term for each query, added up as random errors are, is all that can be asked for.
    """
    wide, exact, own, exact_lse, own_lse = expectations(qkv, where)
    found = computed(kernel, qkv, where)
    lse = found.pop(1)
    blind = exact_lse.isneginf()
    assert torch.equal(lse.isneginf(), blind) and not lse.isnan().any()
    error, limit = ((t - exact_lse)[~blind].norm() for t in (lse, own_lse))
    assert error <= max(1.5 * limit, 2 * UNIT * exact_lse[~blind].norm())
    q, k, v = (t.norm(dim=2).max() if t.numel() else 0.0 for t in wide)
    g, scale, queries = wide[0].shape[2] ** 0.5, where[-1], len(wide[0]) * wide[0].shape[1]
    terms = {"output": v, "dq": g * v * k * scale, "dk": g * v * q * scale, "dv": g}
    for (name, term), got, plain, want in zip(terms.items(), found, own, exact, strict=True):
        error, limit = (float((t - want).detach().norm()) for t in (got, plain))
        rounding = float(UNIT * term * queries**0.5)
        assert error <= max(1.5 * limit, rounding), f"{name}: {error:.3g} > {limit:.3g}, {rounding:.3g}"
        if name == "output" and not gradients:
            return


def normals(queries: int, keys: int, heads: int, width: int, scale: float = 1.0, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(count, heads, width, generator=generator) * size
        for count, size in ((queries, scale), (keys, scale), (keys, 1.0))
    )


def written_out(q: Tensor, k: Tensor, v: Tensor, length: int, offset: int, window: int | None) -> Tensor:
    """The definition for one sequence, position by position, without F.interpolate."""
    taps = len(k)
    output = torch.zeros_like(q)
    for i in range(len(q)):
        seen = [j for j in range(length) if window is None or abs(offset + i - j) <= window]
        if not seen or not taps:
            continue
        rows = []
        for t in (k, v):
            places = [min(max((j + 0.5) * taps / length - 0.5, 0.0), taps - 1.0) for j in seen]
            low = [int(place) for place in places]
            share = torch.tensor([p - n for p, n in zip(places, low, strict=True)], dtype=t.dtype)[
                :, None, None
            ]
            high = [min(n + 1, taps - 1) for n in low]
            rows.append(t[low] * (1 - share) + t[high] * share)
        shares = (torch.einsum("hd,jhd->hj", q[i], rows[0]) * q.shape[2] ** -0.5).softmax(-1)
        output[i] = torch.einsum("hj,jhd->hd", shares, rows[1])
    return output


@pytest.mark.parametrize("impl", ["blocked", "reference"])  # float64
@pytest.mark.parametrize("window", [None, 0, 2, 16, 500])
def test_the_result_is_the_definition_written_out(impl, window):
    (q, k, v), arguments = packed(QUERIES, KEYS)
    for lengths, offsets in ((QUERIES, [0] * 6), (LENGTHS, OFFSETS)):
        found = interpolated_attention(
            q, k, v, **arguments, window=window, impl=impl,
            lengths=torch.tensor(lengths), query_offsets=torch.tensor(offsets),
        )  # fmt: skip
        ends_q, ends_k = arguments["cu_seqlens_q"].tolist(), arguments["cu_seqlens_k"].tolist()
        expected = [
            written_out(
                q[ends_q[n] : ends_q[n + 1]], k[ends_k[n] : ends_k[n + 1]], v[ends_k[n] : ends_k[n + 1]],
                lengths[n], offsets[n], window,
            )
            for n in range(6)
        ]  # fmt: skip
        torch.testing.assert_close(found, torch.cat(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("window", [None, 0, 3, 8, 40])
@pytest.mark.parametrize(
    ("queries", "keys", "lengths"),
    [
        (QUERIES, KEYS, None),
        (QUERIES, KEYS, LENGTHS),
        ([200, 130, 20], [90, 12, 120], None),  # several tiles, non-integer ratios, L < Tk
        ([40, 40], [40, 1], None),  # L = Tk, Tk = 1
        ([3], [100], [1]),
        ([150] * 9, [7] * 9, None),  # more than one chunk
    ],
)
def test_blocked_and_reference_agree_in_values_and_gradients(queries, keys, lengths, window):
    qkv, arguments = packed(queries, keys, width=16)
    arguments["lengths"] = None if lengths is None else torch.tensor(lengths)
    expected = values_and_gradients(qkv, arguments, window=window, impl="reference")
    for got, want in zip(values_and_gradients(qkv, arguments, window=window), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


@every
@pytest.mark.parametrize("slope", [1e-4, 1e-2, 1.0])
def test_long_runs_of_nearly_equal_logits_are_as_exact(kernel, slope):
    # The ratio of neighbours is so close to 1 that fp32 has few digits of their difference.
    q, k, v = normals(40, 5, 2, 16, seed=2)
    where = layout([40], [5], [10_000], [4000], None, 0.25)
    assert_as_exact_as_the_reference(kernel, (q * slope, k, v), where, gradients=False)


# (keys, L): fewer positions than keys, as many, twice as many, ratios of no whole number, long runs, one key,
# one position, more keys than a chunk of runs holds (128), runs summed by doubling (more than 8 positions).
LENGTHS_OF_KEYS = [
    *((70, 30), (70, 69), (40, 40), (40, 41), (40, 79), (40, 80), (30, 70), (33, 150), (9, 144), (10, 400)),
    *((1, 1), (1, 30), (50, 1), (2, 3), (7, 280), (150, 60), (150, 160), (300, 700), (260, 1300)),
]


@every
@pytest.mark.parametrize("window", [None, 0, 1, 5, 40, 10**6])
@pytest.mark.parametrize(("keys", "length"), LENGTHS_OF_KEYS)
def test_fp32_error_is_within_one_and_a_half_times_the_references_own(kernel, keys, length, window):
    queries = min(length, 70)
    qkv = normals(queries, keys, 2, 16)
    middle = [(length - queries) // 2]
    assert_as_exact_as_the_reference(kernel, qkv, layout([queries], [keys], [length], middle, window, 0.25))


@every
@pytest.mark.parametrize("width", [1, 7, 16, 40, 64, 128])
@pytest.mark.parametrize("window", [None, 6])
def test_any_width_is_as_exact(kernel, width, window):
    for keys, length in ((20, 90), (60, 90)):
        qkv = normals(90, keys, 3, width)
        where = layout([90], [keys], [length], None, window, width**-0.5)
        assert_as_exact_as_the_reference(kernel, qkv, where)


@every
@pytest.mark.parametrize("window", [None, 8])
def test_values_at_logits_around_60_are_as_exact(kernel, window):
    for keys, length in ((50, 120), (60, 60), (10, 200), (140, 90)):
        qkv = normals(120, keys, 2, 32, scale=60**0.5)
        where = layout([120], [keys], [length], None, window, 32**-0.5)
        assert_as_exact_as_the_reference(kernel, qkv, where, gradients=False)


@every
@pytest.mark.parametrize("window", [None, 30])
def test_long_turns_of_many_tasks_are_as_exact(kernel, window):
    for keys, length in ((170, 600), (400, 600)):
        qkv = normals(600, keys, 1, 24)
        where = layout([600], [keys], [length], None, window, 24**-0.5)
        assert_as_exact_as_the_reference(kernel, qkv, where)


@pytest.mark.parametrize("window", [700, 10**6])
@pytest.mark.parametrize("name", [name for name in KERNELS if name != "blocked"])
def test_runs_of_thousands_inside_a_window_are_as_exact(name, window):
    qkv = normals(40, 5, 1, 16)
    assert_as_exact_as_the_reference(KERNELS[name], qkv, layout([40], [5], [10_000], [500], window))


def many_sequences(seed: int = 3) -> tuple[list[int], list[int], list[int], list[int]]:
    """Queries, keys, L, offsets of 32 sequences, some without queries, keys or positions, or all unseen."""
    generator = torch.Generator().manual_seed(seed)
    queries, keys, spare, offsets = (
        torch.randint(low, high, (32,), generator=generator).tolist()
        for low, high in ((0, 50), (0, 60), (0, 300), (0, 20))
    )
    queries[4] = keys[9] = spare[14] = 0
    lengths = [
        n + more if index % 3 else n for index, (n, more) in enumerate(zip(queries, spare, strict=True))
    ]
    lengths[20], offsets[25] = 0, 10_000
    return queries, keys, lengths, offsets


@every
@pytest.mark.parametrize("window", [None, 0, 9])
def test_a_packed_batch_of_32_is_as_exact_and_each_sequence_has_the_bits_it_has_alone(kernel, window):
    queries, keys, lengths, offsets = many_sequences()
    qkv = normals(sum(queries), sum(keys), 2, 20)
    where = layout(queries, keys, lengths, offsets, window, 20**-0.5)
    assert_as_exact_as_the_reference(kernel, qkv, where)
    if kernel is KERNELS["blocked"]:
        return  # tiles of like sequences share a product
    together = computed(kernel, qkv, where)[:2]
    ends_q, ends_k = (t.tolist() for t in where[:2])
    for n in range(32):
        one = slice(ends_q[n], ends_q[n + 1])
        alone = (qkv[0][one], *(t[ends_k[n] : ends_k[n + 1]] for t in qkv[1:]))
        of_one = layout([queries[n]], [keys[n]], [lengths[n]], [offsets[n]], window, 20**-0.5)
        found = kernel[0](*alone, *of_one)
        assert all(torch.equal(a, b[one]) for a, b in zip(found, together, strict=True)), n


@every
def test_the_bits_do_not_depend_on_the_number_of_threads(kernel):
    queries, keys, lengths, offsets = many_sequences()
    queries, keys, lengths, offsets = [*queries, 400], [*keys, 190], [*lengths, 500], [*offsets, 60]
    qkv = normals(sum(queries), sum(keys), 2, 20)
    for window in (None, 7):
        where = layout(queries, keys, lengths, offsets, window, 0.3)
        expected = computed(kernel, qkv, where)
        for threads in (3,) if kernel is KERNELS["blocked"] else (2, 3, 7):
            torch.set_num_threads(threads)
            found = computed(kernel, qkv, where)
            assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)), threads
        torch.set_num_threads(1)


@every
def test_no_memory_is_read_before_it_is_written_and_inputs_are_left_alone(kernel):
    queries, keys, lengths, offsets = many_sequences()
    qkv = normals(sum(queries), sum(keys), 2, 7)
    given = tuple(t.clone() for t in qkv)
    for window in (None, 7):
        where = layout(queries, keys, lengths, offsets, window)
        poisoned = computed(kernel, qkv, where)
        torch.use_deterministic_algorithms(False)  # no filling any more
        clean = computed(kernel, qkv, where)
        torch.use_deterministic_algorithms(True, warn_only=True)
        assert all(torch.equal(a, b) for a, b in zip(clean, poisoned, strict=True))
        assert not any(t.isnan().any() for t in poisoned)
        assert all(torch.equal(a, b) for a, b in zip(given, qkv, strict=True))


@every
def test_a_run_is_summed_from_its_larger_end(kernel):
    # From its start, 100 below the maximum, the run's sum would be 0 in fp32: the truth is not.
    q, v = torch.ones(1, 1, 1), torch.tensor([0.0, 1.0, 2.0]).view(3, 1, 1)
    for slope, length in itertools.product((-110.0, 110.0), (30, 200)):
        k = torch.tensor([0.0, slope, slope]).view(3, 1, 1)
        where = layout([1], [3], [length], [length // 2], None)
        expected = by_reference(tuple(t.double() for t in (q, k, v)), where)[0]
        found = kernel[0](q, k, v, *where)[0]
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("window", [None, 2])
def test_gradients_pass_gradcheck(window):
    qkv, arguments = packed([4, 0, 3, 2], [3, 2, 0, 5], width=2)
    arguments["lengths"], arguments["query_offsets"] = torch.tensor([6, 1, 2, 2]), torch.tensor([2, 0, 0, 30])
    assert torch.autograd.gradcheck(lambda *t: interpolated_attention(*t, **arguments, window=window), qkv)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS)
def test_queries_that_see_nothing_give_zero_and_get_gradient_zero(impl):
    qkv, arguments = packed([3, 4, 2], [5, 0, 4], dtype=torch.float32)
    arguments["query_offsets"] = torch.tensor([0, 0, 50])
    output, *gradients = values_and_gradients(qkv, arguments, window=4, impl=impl)
    assert output[3:].eq(0).all() and gradients[0][3:].eq(0).all()
    assert gradients[1][5:].eq(0).all() and gradients[2][5:].eq(0).all()
    assert output[:3].ne(0).all()
    nothing, arguments = packed([3, 4], [0, 0], dtype=torch.float32)
    assert all(t.eq(0).all() for t in values_and_gradients(nothing, arguments, impl=impl))
    no_queries, arguments = packed([0, 0], [3, 2], dtype=torch.float32)
    assert interpolated_attention(*no_queries, **arguments, impl=impl).shape == (0, 2, 4)


@every
def test_offset_queries_one_at_a_time_equal_the_whole_turn(kernel):
    q, k, v = normals(30, 12, 2, 4)
    whole = kernel[0](q, k, v, *layout([30], [12], window=5))
    for n in range(30):
        one = kernel[0](q[n : n + 1], k, v, *layout([1], [12], [30], [n], window=5))
        for found, expected in zip(one, whole, strict=True):
            torch.testing.assert_close(found, expected[n : n + 1], rtol=2e-6, atol=1e-6)


@every
def test_a_sequence_does_not_see_its_neighbours_in_the_batch(kernel):
    qkv = normals(150, 60, 2, 4)
    for window, keys in itertools.product((None, 8), ([20, 30, 10], [20, 10, 30])):
        where = layout([40, 50, 60], keys, window=window)
        expected = kernel[0](*qkv, *where)
        spoiled = [t.clone() for t in qkv]
        inside = slice(20, 20 + keys[1])
        for t, kept in zip(spoiled, (slice(40, 90), inside, inside), strict=True):
            saved = t[kept].clone()
            t.fill_(torch.nan)[kept] = saved
        for found, want in zip(kernel[0](*spoiled, *where), expected, strict=True):
            assert torch.equal(found[40:90], want[40:90])


@pytest.mark.parametrize("impl", IMPLEMENTATIONS[1:])
def test_half_precision_and_autocast_give_their_dtype_and_stay_near_fp32(impl):
    qkv, arguments = packed([50, 20], [20, 30], width=16, dtype=torch.float32)
    expected = values_and_gradients(qkv, arguments, window=6, impl=impl)
    halves = tuple(t.detach().bfloat16().requires_grad_() for t in qkv)
    found = values_and_gradients(halves, arguments, window=6, impl=impl)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = interpolated_attention(halves[0], *qkv[1:], **arguments, window=6, impl=impl)
    assert mixed.dtype == torch.bfloat16 and torch.equal(mixed, found[0])
    for got, want in zip(found, expected, strict=True):
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.float(), want, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("impl", IMPLEMENTATIONS[1:])
def test_two_runs_give_the_same_bits_and_autograd_the_kernels(impl):
    qkv, arguments = packed([90, 150, 20], [60, 33, 44], dtype=torch.float32)
    first, second = (values_and_gradients(qkv, arguments, window=10, impl=impl) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    name = "blocked" if impl == "blocked" else native.instruction_sets()[-1]
    direct = computed(KERNELS[name], qkv, layout([90, 150, 20], [60, 33, 44], window=10, scale=0.5))
    del direct[1]
    assert all(torch.equal(a, b) for a, b in zip(first, direct, strict=True))


def test_reduced_matmul_precision_and_autocast_do_not_reach_the_products():
    qkv, arguments = packed([90], [60], width=64, dtype=torch.float32)
    for impl in IMPLEMENTATIONS[1:]:
        expected = values_and_gradients(qkv, arguments, impl=impl)
        torch.set_float32_matmul_precision("medium")
        try:
            reduced = values_and_gradients(qkv, arguments, impl=impl)
        finally:
            torch.set_float32_matmul_precision("highest")
        assert all(torch.equal(a, b) for a, b in zip(reduced, expected, strict=True))


PEAK = """
import resource, torch
from csm_kernels import native
from csm_kernels.interpolated_attention import cpu
torch.set_num_threads(1)
def run(length, window, name):
    ends_q, ends_k = torch.tensor([0, 64]), torch.tensor([0, 1000])
    q, k = torch.randn(64, 1, 16), torch.randn(1000, 1, 16)
    where = ends_q, ends_k, torch.tensor([length]), torch.tensor([length // 2]), window, 0.25
    output, lse = cpu.attend(q, k, k, *where, instruction_set=name)
    cpu.attend_backward(output, output, lse, q, k, k, *where, instruction_set=name)
for name in native.instruction_sets():
    for window in (None, 4):
        run(2000, window, name)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        run(8_000_000, window, name)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(len(KERNELS) == 1, reason="no compiled kernels")
def test_nothing_of_the_resampled_length_is_formed():
    path = str(Path(csm_kernels.__file__).parents[1])
    done = subprocess.run([sys.executable, "-c", PEAK], cwd=path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    grown = [int(line) / 1024 for line in done.stdout.split()]
    assert grown and max(grown) < 7, f"MB: {grown}"  # a byte for each of the 8,000,000 positions would be 8


def test_a_window_costs_as_much_as_it_sees():
    (q, k, v), arguments = packed([2048], [256], width=32, dtype=torch.float32)
    ends_q, ends_k = arguments.values()
    flops = {}
    for window in (None, 16):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            blocked.attend(q, k, v, ends_q, ends_k, ends_q.diff(), torch.tensor([0]), window, 1.0)
        flops[window] = counter.get_total_flops()
    assert 0 < flops[16] < flops[None] / 16


@pytest.mark.parametrize("impl", IMPLEMENTATIONS[1:])
def test_the_operation_passes_opcheck_and_compiles_as_one_graph(impl):
    (q, k, v), arguments = packed([9, 0, 4], [5, 3, 6], dtype=torch.float32)
    for window in (None, 2):
        call = (q, k, v, *layout([9, 0, 4], [5, 3, 6], window=window, scale=0.5), impl)
        torch.library.opcheck(torch.ops.csm.interpolated_attention.default, call)
        expected = values_and_gradients((q, k, v), arguments, window=window, impl=impl)
        for dynamic in (False, True):
            torch._dynamo.reset()
            compiled = torch.compile(
                lambda *t, w=window: interpolated_attention(*t, **arguments, window=w, impl=impl),
                backend="aot_eager", fullgraph=True, dynamic=dynamic,
            )  # fmt: skip
            assert torch.equal(compiled(q, k, v), expected[0])


def test_the_backward_operation_passes_opcheck_and_auto_compiles_with_gradients():
    (q, k, v), arguments = packed([9, 0, 4], [5, 3, 6], dtype=torch.float32)
    where = layout([9, 0, 4], [5, 3, 6], window=2, scale=0.5)
    with torch.no_grad():
        for impl in IMPLEMENTATIONS[1:]:
            output, lse = torch.ops.csm.interpolated_attention(q, k, v, *where, impl)
            call = (torch.ones_like(output), output, lse, *(t.detach() for t in (q, k, v)), *where, impl)
            torch.library.opcheck(torch.ops.csm.interpolated_attention_backward.default, call)
    expected = values_and_gradients((q, k, v), arguments, window=2)
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda *t: interpolated_attention(*t, **arguments, window=2), backend="aot_eager", fullgraph=True
    )
    output = compiled(q, k, v)
    weights = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).view(output.shape)
    found = [output, *torch.autograd.grad((output.double() * weights).sum(), (q, k, v))]
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"q": torch.zeros(4, 8)}, "q: expected"),
        ({"k": torch.zeros(5, 3, 4)}, "k: expected"),
        ({"v": torch.zeros(4, 2, 4)}, "v: 4 rows, k has 5"),
        ({"k": torch.zeros(5, 2, 4).double()}, "cast them to one dtype"),
        ({"cu_seqlens_q": torch.tensor([0.0, 4.0])}, "cu_seqlens_q: expected int32 or int64"),
        ({"cu_seqlens_q": torch.tensor([0, 3])}, "cu_seqlens_q: expected to rise from 0 to 4"),
        ({"cu_seqlens_k": torch.tensor([0, 2, 5])}, r"cu_seqlens_k: expected int32 or int64 \[2\]"),
        ({"cu_seqlens_k": torch.tensor([1, 5])}, "cu_seqlens_k: expected to rise from 0 to 5"),
        ({"lengths": torch.tensor([-1])}, "lengths: expected numbers >= 0"),
        ({"lengths": torch.tensor([1, 2])}, "lengths: expected"),
        ({"query_offsets": torch.tensor([-2])}, "query_offsets: expected numbers >= 0"),
        ({"window": -1}, "window: expected"),
        ({"impl": "fast"}, "impl: expected"),
    ],
)
def test_a_wrong_argument_is_named(change, said):
    given = {
        "q": torch.zeros(4, 2, 4), "k": torch.zeros(5, 2, 4), "v": torch.zeros(5, 2, 4),
        "cu_seqlens_q": torch.tensor([0, 4]), "cu_seqlens_k": torch.tensor([0, 5]), **change,
    }  # fmt: skip
    q, k, v = (given.pop(name) for name in "qkv")
    with pytest.raises(ValueError, match=said):
        interpolated_attention(q, k, v, **given)
