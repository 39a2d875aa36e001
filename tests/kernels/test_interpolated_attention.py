"""interpolated_attention: F.interpolate, mask and softmax, for packed sequences of any two lengths."""

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from csm_kernels import interpolated_attention
from csm_kernels.interpolated_attention import blocked

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


@pytest.mark.parametrize("impl", ["blocked", "reference"])
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


@pytest.mark.parametrize("scale", [1.0, 8.0])  # 8: logits around 60
@pytest.mark.parametrize("window", [None, 8])
def test_fp32_error_is_within_one_and_a_half_times_the_references_own(scale, window):
    queries, keys = [120, 60, 33], [50, 60, 47]
    exact_qkv, arguments = packed(queries, keys, width=32, scale=scale)
    qkv = tuple(t.detach().float().requires_grad_() for t in exact_qkv)
    exact_qkv = tuple(t.detach().double().requires_grad_() for t in qkv)
    exact = values_and_gradients(exact_qkv, arguments, window=window, impl="reference")
    own = values_and_gradients(qkv, arguments, window=window, impl="reference")
    for got, plain, want in zip(values_and_gradients(qkv, arguments, window=window), own, exact, strict=True):
        assert (got - want).norm() <= 1.5 * (plain - want).norm()


@pytest.mark.parametrize("window", [None, 2])
def test_gradients_pass_gradcheck(window):
    qkv, arguments = packed([4, 0, 3, 2], [3, 2, 0, 5], width=2)
    arguments["lengths"], arguments["query_offsets"] = torch.tensor([6, 1, 2, 2]), torch.tensor([2, 0, 0, 30])
    assert torch.autograd.gradcheck(lambda *t: interpolated_attention(*t, **arguments, window=window), qkv)


@pytest.mark.parametrize("impl", ["blocked", "reference"])
def test_queries_that_see_nothing_give_zero_and_get_gradient_zero(impl):
    qkv, arguments = packed([3, 4, 2], [5, 0, 4])
    arguments["query_offsets"] = torch.tensor([0, 0, 50])
    output, *gradients = values_and_gradients(qkv, arguments, window=4, impl=impl)
    assert output[3:].eq(0).all() and gradients[0][3:].eq(0).all()
    assert gradients[1][5:].eq(0).all() and gradients[2][5:].eq(0).all()
    assert output[:3].ne(0).all()
    nothing, arguments = packed([3, 4], [0, 0])
    assert all(t.eq(0).all() for t in values_and_gradients(nothing, arguments, impl=impl))
    nobody, arguments = packed([0, 0], [3, 2])
    assert interpolated_attention(*nobody, **arguments, impl=impl).shape == (0, 2, 4)


def test_offset_queries_one_at_a_time_equal_the_whole_turn():
    (q, k, v), arguments = packed([30], [12])
    whole = interpolated_attention(q, k, v, **arguments, window=5)
    for n in range(30):
        one = interpolated_attention(
            q[n : n + 1], k, v, cu_seqlens_q=bounds([1]), cu_seqlens_k=bounds([12]),
            lengths=torch.tensor([30]), query_offsets=torch.tensor([n]), window=5,
        )  # fmt: skip
        torch.testing.assert_close(one, whole[n : n + 1], rtol=1e-12, atol=1e-12)


def test_a_sequence_does_not_see_its_neighbours_in_the_batch():
    (q, k, v), arguments = packed([40, 50, 60], [20, 30, 10])
    expected = interpolated_attention(q, k, v, **arguments, window=8)[40:90]
    spoiled = [t.detach().clone() for t in (q, k, v)]
    for t, inside in zip(spoiled, (slice(40, 90), slice(20, 50), slice(20, 50)), strict=True):
        kept = t[inside].clone()
        t.fill_(torch.nan)[inside] = kept
    assert torch.equal(interpolated_attention(*spoiled, **arguments, window=8)[40:90], expected)


def test_half_precision_and_autocast_give_their_dtype_and_stay_near_fp32():
    qkv, arguments = packed([50, 20], [20, 30], width=16, dtype=torch.float32)
    expected = values_and_gradients(qkv, arguments, window=6)
    halves = tuple(t.detach().bfloat16().requires_grad_() for t in qkv)
    found = values_and_gradients(halves, arguments, window=6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = interpolated_attention(halves[0], *qkv[1:], **arguments, window=6)
    assert mixed.dtype == torch.bfloat16 and torch.equal(mixed, found[0])
    for got, want in zip(found, expected, strict=True):
        assert got.dtype == torch.bfloat16
        torch.testing.assert_close(got.float(), want, rtol=0.05, atol=0.05)


def test_two_runs_give_the_same_bits():
    qkv, arguments = packed([90, 150, 20], [60, 33, 44], dtype=torch.float32)
    first, second = (values_and_gradients(qkv, arguments, window=10) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_window_costs_as_much_as_it_sees():
    (q, k, v), arguments = packed([2048], [256], width=32, dtype=torch.float32)
    ends_q, ends_k = arguments.values()
    flops = {}
    for window in (None, 16):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            blocked.attend(q, k, v, ends_q, ends_k, ends_q.diff(), torch.tensor([0]), window, 1.0)
        flops[window] = counter.get_total_flops()
    assert 0 < flops[16] < flops[None] / 16


def test_the_operation_passes_opcheck_and_compiles_as_one_graph():
    (q, k, v), arguments = packed([9, 0, 4], [5, 3, 6])
    ends_q, ends_k = arguments.values()
    for window in (None, 2):
        call = (q, k, v, ends_q, ends_k, ends_q.diff(), torch.zeros(3, dtype=torch.int64), window, 0.5)
        torch.library.opcheck(torch.ops.csm.interpolated_attention.default, call)
        expected = values_and_gradients((q, k, v), arguments, window=window)
        for dynamic in (False, True):
            compiled = torch.compile(
                lambda *t, w=window: interpolated_attention(*t, **arguments, window=w),
                backend="aot_eager", fullgraph=True, dynamic=dynamic,
            )  # fmt: skip
            assert torch.equal(compiled(q, k, v), expected[0])


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
