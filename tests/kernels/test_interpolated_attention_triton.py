"""interpolated_attention's Triton kernels, interpreted: the reference's values and gradients."""

from collections.abc import Sequence
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")
from csm_kernels.interpolated_attention import reference, triton_kernel  # noqa: E402

pytestmark = pytest.mark.skipif(
    torch.cuda.is_available(), reason="the interpreter runs where there is no GPU"
)

EPS = {torch.float32: 2.0**-23, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


class Turn(NamedTuple):
    """One sequence of a packed batch."""

    queries: int
    keys: int
    length: int
    offset: int = 0


BATCHES: dict[str, list[Turn]] = {
    "eight positions a key": [Turn(40, 5, 40)],
    "sixteen positions a key": [Turn(33, 2, 32)],
    "runs longer than sixteen": [Turn(50, 2, 50)],
    "as many positions as keys": [Turn(21, 21, 21)],
    "fewer positions than keys": [Turn(20, 37, 20)],
    "one key": [Turn(19, 1, 19)],
    "one position": [Turn(3, 9, 1)],
    "no whole ratio": [Turn(31, 13, 31)],
    "between one and two": [Turn(24, 17, 24)],
    "offsets and foreign lengths": [Turn(5, 9, 40, 17), Turn(3, 6, 11, 2)],
    "a query beyond the end": [Turn(4, 5, 12, 30)],
    "empty turns": [
        Turn(6, 4, 9),
        Turn(0, 4, 7),
        Turn(6, 0, 10),
        Turn(5, 3, 0),
        Turn(0, 0, 0),
        Turn(2, 2, 2),
    ],
    "more than one tile": [Turn(70, 6, 70), Turn(5, 36, 50)],
}


def packed(turns: Sequence[Turn], heads: int, width: int, dtype: torch.dtype, scale: float = 1.0):
    """q, k, v, the gradient of the output, and the packing."""
    generator = torch.Generator().manual_seed(sum(map(sum, turns)) + width)
    counts = [sum(turn.queries for turn in turns), *[sum(turn.keys for turn in turns)] * 2]
    tensors = [torch.randn(n, heads, width, generator=generator) for n in (*counts, counts[0])]
    q, k, v, gradient = (t.to(dtype) for t in (tensors[0] * scale, *tensors[1:]))
    bounds = [torch.tensor([0, *(turn[n] for turn in turns)]).cumsum(0) for n in (0, 1)]
    lengths, offsets = (torch.tensor([turn[n] for turn in turns]) for n in (2, 3))
    return (q, k, v, gradient), (*bounds, lengths, offsets)


def by_reference(tensors, packing, window, dtype: torch.dtype) -> list[Tensor]:
    *qkv, gradient = (t.to(dtype) for t in tensors)
    qkv = [t.requires_grad_() for t in qkv]
    output = reference.attend(*qkv, *packing, window, qkv[0].shape[2] ** -0.5)
    return [output, *torch.autograd.grad(output, qkv, gradient, materialize_grads=True)]


def in_another_order(tensors, packing, window, seed: int) -> list[Tensor]:
    """The fp32 reference whose logits are added up over the channels in a shuffled order."""
    q, k, v, gradient = tensors
    order = torch.randperm(q.shape[2], generator=torch.Generator().manual_seed(seed))
    shuffled = (q[..., order], k[..., order], v, gradient)
    output, dq, dk, dv = by_reference(shuffled, packing, window, torch.float32)
    return [output, dq[..., order.argsort()], dk[..., order.argsort()], dv]


def by_triton(tensors, packing, window) -> list[Tensor]:
    *qkv, gradient = tensors
    scale = qkv[0].shape[2] ** -0.5
    output, lse = triton_kernel.attend(*qkv, *packing, window, scale)
    backward = triton_kernel.attend_backward(gradient, output, lse, *qkv, *packing, window, scale)
    return [output, *backward]


def assert_near(tensors, packing, window, dtype: torch.dtype) -> None:
    """No further from float64 than 1.5 times fp32's own error, and a half-precision result's rounding."""
    exact = by_reference(tensors, packing, window, torch.float64)
    own = by_reference(tensors, packing, window, torch.float32)
    # Where a query sees one position its logits' gradient is exactly 0 in the reference; here it is what is
    # left of g.v - g.O, rounded: a few units of the last place of what was subtracted.
    for name, got, plain, want in zip(
        ("output", "q", "k", "v"), by_triton(tensors, packing, window), own, exact, strict=True
    ):
        assert got.dtype == dtype and got.shape == want.shape
        want, plain = want.detach(), plain.detach()
        size = max(float(want.norm()), float(tensors[3].double().norm()))
        limit = 1.5 * float((plain - want).norm()) + 4 * 2.0**-24 * size
        if dtype != torch.float32:
            limit += 1.5 * EPS[dtype] * size
        assert float((got.double() - want).norm()) <= limit, name


@pytest.mark.parametrize("window", [None, 0, 3, 100])
@pytest.mark.parametrize("batch", BATCHES)
def test_values_and_gradients_are_the_references(batch, window):
    tensors, packing = packed(BATCHES[batch], 1, 16, torch.float32)
    assert_near(tensors, packing, window, torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("window", [None, 4])
@pytest.mark.parametrize("batch", ["eight positions a key", "fewer positions than keys", "empty turns"])
def test_half_precision_inputs_are_summed_in_fp32(batch, window, dtype):
    tensors, packing = packed(BATCHES[batch], 1, 16, dtype)
    assert_near(tensors, packing, window, dtype)


@pytest.mark.parametrize("window", [None, 2])
@pytest.mark.parametrize(("heads", "width"), [(2, 1), (3, 7), (1, 24), (2, 32), (1, 64), (1, 100), (1, 128)])
def test_any_number_of_heads_of_any_width_to_128(heads, width, window):
    tensors, packing = packed([Turn(9, 4, 9), Turn(7, 8, 14)], heads, width, torch.float32)
    assert_near(tensors, packing, window, torch.float32)


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("width", [16, 32, 128])
@pytest.mark.parametrize("batch", ["eight positions a key", "no whole ratio"])
def test_logits_of_hundreds_are_rounded_alike_by_all_three_kernels(batch, width, window):
    tensors, packing = packed(BATCHES[batch], 1, width, torch.float32, scale=60.0)
    exact = by_reference(tensors, packing, window, torch.float64)
    own = [in_another_order(tensors, packing, window, seed) for seed in range(4)]
    # An ulp of a logit of 500 is 3e-5 of its share: kernels that sum it in other orders differ by 1e-5 in dv,
    # up to 70 times fp32's own error. Twice that error is chance: one logit rounds up, another down.
    found = by_triton(tensors, packing, window)
    for name, got, want, *rounded in zip(("output", "q", "k", "v"), found, exact, *own, strict=True):
        want = want.detach()
        error = max(float((one.detach() - want).norm()) for one in rounded)
        assert float((got - want).norm()) <= 2 * error + 4 * 2.0**-24 * float(want.norm()), name


@pytest.mark.parametrize("window", [None, 4])
def test_a_query_that_sees_nothing_gives_zero_and_says_so(window):
    turns = [Turn(3, 5, 6), Turn(4, 0, 4), Turn(2, 4, 0)]
    tensors, packing = packed(turns, 2, 16, torch.float32)
    output, lse = triton_kernel.attend(*tensors[:3], *packing, window, 0.25)
    assert output[3:].eq(0).all() and lse[3:].eq(-torch.inf).all() and lse[:3].isfinite().all()
    dq, dk, dv = by_triton(tensors, packing, window)[1:]
    assert dq[3:].eq(0).all() and dk[5:].eq(0).all() and dv[5:].eq(0).all()


def inside_guards(shape: Sequence[int], kind: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """NaN memory and its middle, at 16 bytes; what is before and behind must stay NaN."""
    count = torch.Size(shape).numel()
    memory = torch.full((count + 128,), torch.nan, dtype=kind)
    return memory, memory[64 : 64 + count].view(*shape)


@pytest.mark.parametrize("window", [None, 3])
def test_every_element_of_the_outputs_is_written_and_nothing_else(window):
    (q, k, v, gradient), packing = packed(BATCHES["more than one tile"], 1, 16, torch.float32)
    output_memory, output = inside_guards(q.shape)
    lse_memory, lse = inside_guards(q.shape[:2])
    triton_kernel.launch(q, k, v, output, lse, packing, window, 0.25)
    dq_memory, dq = inside_guards(q.shape)
    dk_memory, dk = inside_guards(k.shape)
    dv_memory, dv = inside_guards(v.shape)
    dk.zero_(), dv.zero_()
    triton_kernel.launch_backward(gradient, output, lse, q, k, v, dq, dk, dv, packing, window, 0.25)
    for memory, inside in (
        (output_memory, output), (lse_memory, lse), (dq_memory, dq), (dk_memory, dk), (dv_memory, dv),
    ):  # fmt: skip
        assert inside.isfinite().all()
        assert memory[:64].isnan().all() and memory[64 + inside.numel() :].isnan().all()


def test_a_turn_has_the_same_bits_alone_and_in_a_batch():
    turns = [Turn(9, 3, 9), Turn(20, 6, 20), Turn(4, 9, 4)]
    tensors, packing = packed(turns, 1, 16, torch.float32)
    whole = by_triton(tensors, packing, 4)
    q, k = slice(9, 29), slice(3, 9)
    alone_packing = torch.tensor([0, 20]), torch.tensor([0, 6]), torch.tensor([20]), torch.tensor([0])
    alone = by_triton([t[s].clone() for t, s in zip(tensors, (q, k, k, q), strict=True)], alone_packing, 4)
    for got, all_of_it, part in zip(alone, whole, (q, q, k, k), strict=True):
        assert torch.equal(got, all_of_it[part])
