"""Attention over resampled keys against F.interpolate + SDPA, and against SDPA over the raw keys."""

from functools import partial

import pytest
import torch
from torch.nn.functional import interpolate, pad, scaled_dot_product_attention

from csm_kernels import interpolated_attention

WIDTH = 64
RAW, EAGER, COMPILED = "SDPA over the raw keys", "F.interpolate + SDPA", "F.interpolate + SDPA compiled"
BILINEAR = "bilinear F.interpolate + SDPA"
# (batch, heads, queries = resampled positions, keys) -> target ratios of the peers' times to ours.
FORWARD = {
    (2, 12, 512, 64): {EAGER: 12.0, COMPILED: 12.0, RAW: 1 / 1.5},
    (1, 12, 2048, 128): {EAGER: 25.0, COMPILED: 25.0, RAW: 1 / 2},
    (1, 12, 2048, 256): {EAGER: 14.0, COMPILED: 14.0, RAW: 1 / 2},
    (2, 12, 512, 256): {EAGER: 2.0, COMPILED: 2.0},
}
BOTH = dict.fromkeys(list(FORWARD)[:2], {EAGER: 8.0, COMPILED: 8.0})
LOOP, RAW_LOOP, GLOBAL = (
    "loop of F.interpolate + SDPA",
    "loop of SDPA over the raw keys",
    "csm global",
)
BILINEAR_LOOP = "loop of bilinear F.interpolate + SDPA"


def resampled(q, k, v, mask=None):
    """The definition, on tensors [B, H, T, d]; F.interpolate needs time as the last axis."""
    keys, values = (
        interpolate(t.flatten(0, 1).mT, size=q.shape[2], mode="linear", align_corners=False).mT.unflatten(
            0, t.shape[:2]
        )
        for t in (k, v)
    )
    return scaled_dot_product_attention(q, keys, values, attn_mask=mask)


def resampled_bilinear(q, k, v):
    """The same, several times faster: bilinear mode at the same width needs no transposition; no bar."""
    size = (q.shape[2], q.shape[3])
    keys, values = (interpolate(t, size=size, mode="bilinear", align_corners=False) for t in (k, v))
    return scaled_dot_product_attention(q, keys, values)


class Turns:
    """Random turns, packed [rows, heads, WIDTH] for ours and the same numbers in the peers' layout."""

    def __init__(self, queries, keys, heads, device):
        generator = torch.Generator().manual_seed(0)
        self.queries, self.keys = queries, keys
        starts = [pad(torch.tensor(c).cumsum(0), (1, 0)).to(torch.int32).to(device) for c in (queries, keys)]
        self.layout = dict(zip(("cu_seqlens_q", "cu_seqlens_k"), starts, strict=True))
        rows = (sum(queries), sum(keys), sum(keys), sum(queries))
        values = [torch.randn(n, heads, WIDTH, generator=generator).to(device) for n in rows]
        *self.packed, self.gradient = values

    def per_turn(self):
        """Returns q, k and v of every turn in SDPA's layout, contiguous."""
        counts = (self.queries, self.keys, self.keys)
        split = [t.split(c) for t, c in zip(self.packed, counts, strict=True)]
        return [[t.transpose(0, 1).contiguous()[None] for t in turn] for turn in zip(*split, strict=True)]

    def batched(self, tensor, count):
        """Returns turns of one length as [B, H, T, d]."""
        return tensor.unflatten(0, (-1, count)).transpose(1, 2).contiguous()

    def check(self, window, backward):
        """Asserts that the error of the first two heads against float64 is at most 1.5 times that of fp32."""

        def results(tensors, impl):
            leaves = [t.detach().requires_grad_(backward) for t in tensors]
            out = interpolated_attention(*leaves, **self.layout, window=window, impl=impl)
            gradient = self.gradient[:, : out.shape[1]].to(out.dtype)
            return [out, *(torch.autograd.grad(out, leaves, gradient) if backward else ())]

        two = [t[:, :2] for t in self.packed]
        ours = results(self.packed, "auto")
        exact, fp32 = results([t.double() for t in two], "reference"), results(two, "reference")
        for name, found, truth, usual in zip(("output", "dq", "dk", "dv"), ours, exact, fp32, strict=False):
            error, allowed = (float((t.detach()[:, :2] - truth).abs().max()) for t in (found, usual))
            step = 2.0**-23 * float(truth.detach().abs().max())  # one rounding of the largest value
            assert error <= 1.5 * allowed + step, f"{name}: error {error:.2e}, of fp32 {allowed:.2e}"
        return ours


def differentiated(call, tensors, gradient):
    leaves = [t.detach().requires_grad_() for t in tensors]
    return lambda: torch.autograd.grad(call(*leaves), leaves, gradient)


def moved(turns, backward=False):
    """Returns the bytes of q, k, v and the output, and of their gradients with `backward`."""
    size = 2 * turns.packed[0].nbytes + 2 * turns.packed[1].nbytes
    return 2 * size if backward else size


@pytest.mark.parametrize("name", ["csm", EAGER, COMPILED, BILINEAR, RAW])
@pytest.mark.parametrize("shape", FORWARD, ids=lambda s: "B{}_H{}_L{}_Tk{}".format(*s))
def test_forward(name, shape, device, compare):
    _dense(name, shape, device, compare, backward=False)


@pytest.mark.parametrize("name", ["csm", EAGER, COMPILED, BILINEAR, RAW])
@pytest.mark.parametrize("shape", BOTH, ids=lambda s: "B{}_H{}_L{}_Tk{}".format(*s))
def test_forward_and_backward(name, shape, device, compare):
    _dense(name, shape, device, compare, backward=True)


def _dense(name, shape, device, compare, backward):
    batch, heads, length, count = shape
    turns = Turns([length] * batch, [count] * batch, heads, device)

    def contenders():
        ours = turns.check(None, backward)
        counts = (length, count, count)
        tensors = [turns.batched(t, n) for t, n in zip(turns.packed, counts, strict=True)]
        gradient = turns.batched(turns.gradient, length)

        def timed(function, inputs=tensors, gradient=gradient):
            return differentiated(function, inputs, gradient) if backward else lambda: function(*inputs)

        def peer(function):
            found = function(*tensors)
            torch.testing.assert_close(found, turns.batched(ours[0].detach(), length), rtol=1e-3, atol=1e-4)
            call = timed(function)
            call()  # torch.compile compiles the backward pass here
            return call

        op = partial(interpolated_attention, **turns.layout)
        return {
            "csm": lambda: timed(op, turns.packed, turns.gradient),
            EAGER: lambda: peer(resampled),
            COMPILED: lambda: peer(torch.compile(resampled, dynamic=False)),
            BILINEAR: lambda: peer(resampled_bilinear),
            RAW: lambda: timed(scaled_dot_product_attention),
        }

    pairs = batch * heads * length * WIDTH
    # Two products forward, five backward: over the keys for ours and the raw keys, else over the positions.
    flops = 4 * pairs * (count if name in ("csm", RAW) else length)
    factor = 3.5 if backward else 1.0
    kind = "forward + backward" if backward else "forward"
    compare(
        name,
        f"interpolated_attention {kind} B*H {batch * heads}, L {length}, Tk {count}, d {WIDTH}",
        contenders,
        flops=factor * flops,
        moved=moved(turns, backward),
        bars=(BOTH if backward else FORWARD)[shape],
    )


@pytest.mark.parametrize("name", ["csm", GLOBAL, EAGER])
def test_window(name, device, compare):
    heads, length, count, window = 12, 2048, 256, 16
    turns = Turns([length], [count], heads, device)

    def contenders():
        ours = turns.check(window, False)[0]
        (tensors,) = turns.per_turn()
        place = torch.arange(length, device=device)
        mask = (place[:, None] - place).abs() <= window

        def peer():
            found = resampled(*tensors, mask)[0].transpose(0, 1)
            torch.testing.assert_close(found, ours, rtol=1e-3, atol=1e-4)
            return lambda: resampled(*tensors, mask)

        op = partial(interpolated_attention, *turns.packed, **turns.layout)
        return {
            "csm": lambda: partial(op, window=window),
            GLOBAL: lambda: op,
            EAGER: peer,
        }

    pairs, seen = heads * length * WIDTH, (2 * window + 1) * count / length + 1
    compare(
        name,
        f"interpolated_attention forward window {window}, B*H {heads}, L {length}, Tk {count}, d {WIDTH}",
        contenders,
        flops={"csm": 8 * pairs * seen, GLOBAL: 8 * pairs * count}.get(name, 4 * pairs * length),
        moved=moved(turns),
        bars={GLOBAL: 3.0},
    )


@pytest.mark.parametrize("name", ["csm", LOOP, BILINEAR_LOOP, RAW_LOOP])
@pytest.mark.parametrize("keys", ["a key per 8 queries", "keys of 5-400 too"])
def test_packed_turns(name, keys, device, compare):
    """32 turns of 5 to 400 queries. With as many keys as queries ours saves nothing, so there is no bar."""
    heads, generator = 12, torch.Generator().manual_seed(1)
    queries = torch.randint(5, 401, (32,), generator=generator).tolist()
    counts = torch.randint(5, 401, (32,), generator=generator).tolist()
    sparse = "per 8" in keys
    turns = Turns(queries, [-(-n // 8) for n in queries] if sparse else counts, heads, device)

    def contenders():
        ours = turns.check(None, False)[0]
        split = turns.per_turn()

        def peer(function):
            found = torch.cat([function(*turn)[0].transpose(0, 1) for turn in split])
            torch.testing.assert_close(found, ours, rtol=1e-3, atol=1e-4)
            return lambda: [function(*turn) for turn in split]

        return {
            "csm": lambda: partial(interpolated_attention, *turns.packed, **turns.layout),
            LOOP: lambda: peer(resampled),
            BILINEAR_LOOP: lambda: peer(resampled_bilinear),
            RAW_LOOP: lambda: lambda: [scaled_dot_product_attention(*turn) for turn in split],
        }

    pairs = heads * WIDTH * sum(n * m for n, m in zip(turns.queries, turns.keys, strict=True))
    full = heads * WIDTH * sum(n * n for n in turns.queries)
    compare(
        name,
        f"interpolated_attention forward 32 packed turns of 5-400 queries, {keys}, {heads} heads, d {WIDTH}",
        contenders,
        flops=4 * (pairs if name in ("csm", RAW_LOOP) else full),
        moved=moved(turns),
        bars={LOOP: 10.0} if sparse else {},
    )
