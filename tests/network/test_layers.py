"""The shared blocks: rotary positions, and three layouts of attention that must agree."""

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from csm.network import layers, varlen
from csm.network.layers import (
    FeedForward,
    KeyValueCache,
    PackedSequences,
    RMSNorm,
    attend_few,
)
from csm.network.rotary import Rotation, joined_rotation, rotary_frequencies, rotate, rotate_both, rotation


def per_sequence(q, k, v, lengths):
    """Causal attention of each sequence alone, by the formula."""
    outs = []
    for q1, k1, v1 in zip(q.split(lengths), k.split(lengths), v.split(lengths), strict=True):
        share = q1.shape[1] // k1.shape[1]
        k1, v1 = k1.repeat_interleave(share, dim=1), v1.repeat_interleave(share, dim=1)
        scores = torch.einsum("qnh,knh->nqk", q1, k1) / q1.shape[-1] ** 0.5
        past = torch.ones(len(q1), len(q1)).tril().bool()
        weights = scores.masked_fill(~past, float("-inf")).softmax(-1)
        outs.append(torch.einsum("nqk,knh->qnh", weights, v1))
    return torch.cat(outs)


def layout(lengths):
    return PackedSequences.of(F.pad(torch.tensor(lengths).cumsum(0), (1, 0)).int(), max(lengths))


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("lengths", [[5], [1, 7, 3], [6, 6, 6]])
def test_packed_attention_is_a_loop_over_the_sequences(lengths, kv_heads) -> None:
    torch.manual_seed(0)
    q = torch.randn(sum(lengths), 4, 8, requires_grad=True)
    k, v = (torch.randn(sum(lengths), kv_heads, 8, requires_grad=True) for _ in range(2))
    out, expected = layout(lengths)(0, q, k, v), per_sequence(q, k, v, lengths)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    g = torch.randn_like(out)
    for a, b in zip(
        torch.autograd.grad(out, (q, k, v), g), torch.autograd.grad(expected, (q, k, v), g), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_cached_attention_is_the_whole_attention_however_the_rows_arrive(kv_heads) -> None:
    torch.manual_seed(0)
    q, k, v = torch.randn(9, 4, 8), torch.randn(9, kv_heads, 8), torch.randn(9, kv_heads, 8)
    whole = per_sequence(q, k, v, [9])
    for pieces in ([9], [1] * 9, [4, 1, 3, 1]):
        cache = KeyValueCache(layers=1, capacity=9)
        outs = []
        for q1, k1, v1 in zip(q.split(pieces), k.split(pieces), v.split(pieces), strict=True):
            outs.append(cache(0, q1, k1, v1))
            cache.advance(len(q1))
        torch.testing.assert_close(torch.cat(outs), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("layout_of", ["causal", "mask", "all"])
def test_attention_over_few_keys_is_attention(kv_heads, layout_of) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(3, heads, 6, 8, requires_grad=True) for heads in (4, kv_heads, kv_heads))
    mask = (torch.rand(3, 1, 6, 6) < 0.5) | torch.eye(6).bool() if layout_of == "mask" else None
    options = {"enable_gqa": kv_heads != 4, "is_causal": layout_of == "causal"}
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, **options)
    out = attend_few(q, k, v, mask=mask, causal=layout_of == "causal")
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    g = torch.randn_like(out)
    for a, b in zip(
        torch.autograd.grad(out, (q, k, v), g), torch.autograd.grad(expected, (q, k, v), g), strict=True
    ):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        half = attend_few(q.bfloat16(), k.bfloat16(), v.bfloat16(), mask=mask, causal=layout_of == "causal")
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), expected, atol=3e-2, rtol=3e-2)


def test_a_full_cache_says_so() -> None:
    cache = KeyValueCache(layers=1, capacity=2)
    with pytest.raises(ValueError, match="holds 2 rows, 3 were asked for"):
        cache(0, torch.zeros(3, 1, 2), torch.zeros(3, 1, 2), torch.zeros(3, 1, 2))


def test_padding_and_its_way_back_lose_nothing() -> None:
    rows = torch.randn(11, 3)
    packed = layout([4, 2, 5])
    padded = packed.pad(rows)
    assert padded.shape == (3, 5, 3)
    assert torch.equal(packed.unpad(padded), rows)
    assert not padded[1, 2:].any()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_flash_attention_is_the_padded_attention(monkeypatch) -> None:
    lengths = [5, 60, 17]
    q, k, v = (torch.randn(82, 4, 64, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    packed = PackedSequences.of(F.pad(torch.tensor(lengths).cumsum(0), (1, 0)).int().cuda(), 60)
    fast = packed(0, q, k, v)
    monkeypatch.setattr(layers, "kernel_for", lambda q: None)
    torch.testing.assert_close(fast, packed(0, q, k, v), atol=2e-2, rtol=2e-2)


def test_flash_attention_is_called_with_the_packed_rows_where_it_fits(monkeypatch) -> None:
    """Without a CUDA device: a stand-in for the kernel is given what its manual asks for."""
    calls = []

    def stand_in(q, k, v, starts_q, starts_k, longest_q, longest_k, band):
        calls.append((q.dtype, starts_q.tolist(), longest_q, longest_k, band))
        lengths = starts_q.diff().tolist()
        return per_sequence(q.float(), k.float(), v.float(), lengths).to(q.dtype)

    monkeypatch.setattr(varlen, "KERNEL", stand_in)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    q, k, v = torch.randn(8, 4, 8), torch.randn(8, 2, 8), torch.randn(8, 2, 8)
    packed = layout([3, 5])
    plain = packed(0, q, k, v)
    assert not calls  # fp32 on a CPU: SDPA
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))
    half = packed(0, q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert calls == [(torch.bfloat16, [0, 3, 8], 5, 5, (-1, 0))]
    torch.testing.assert_close(half.float(), plain, atol=3e-2, rtol=3e-2)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_cuda_groups_of_heads_go_to_a_kernel_that_takes_them(monkeypatch, dtype, masked) -> None:
    """Flash attention takes groups but neither fp32 nor a mask; the other fast kernels take no groups."""
    q, k = torch.randn(1, 4, 5, 8).to(dtype), torch.randn(1, 2, 5, 8).to(dtype)
    mask = torch.ones(5, 5, dtype=torch.bool).tril() if masked else None
    plain = layers.attend_grouped(q, k, k, mask=mask)
    sdpa, asked = F.scaled_dot_product_attention, []

    def recorded(q, k, v, *, attn_mask, is_causal, enable_gqa):
        asked.append((k.shape[1], enable_gqa))
        return sdpa(q, k, v, attn_mask=attn_mask, is_causal=is_causal, enable_gqa=enable_gqa)

    monkeypatch.setattr(F, "scaled_dot_product_attention", recorded)
    assert torch.equal(layers.attend_grouped(q, k, k, mask=mask), plain)
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))
    torch.testing.assert_close(layers.attend_grouped(q, k, k, mask=mask), plain)
    flash = dtype != torch.float32 and not masked
    assert asked == [(2, True), (2, True) if flash else (4, False)]


def test_rotary_positions_only_tell_distances() -> None:
    frequencies = rotary_frequencies(16, 1e4)
    q, k = torch.randn(1, 1, 16), torch.randn(1, 1, 16)

    def turned(x: torch.Tensor, place: float) -> torch.Tensor:
        return rotate(x, rotation(torch.tensor([place]), frequencies))

    def product(a: float, b: float) -> torch.Tensor:
        return (turned(q, a) * turned(k, b)).sum()

    torch.testing.assert_close(product(3.5, 1.0), product(103.5, 101.0), atol=1e-4, rtol=1e-4)
    assert abs(product(3.5, 1.0) - product(3.5, 2.0)) > 1e-3
    torch.testing.assert_close(turned(q, 0.0), q)
    torch.testing.assert_close(turned(q, 7.0).norm(), q.norm())


def test_a_rotation_is_the_formula_and_so_is_its_gradient() -> None:
    x = torch.randn(5, 3, 16, dtype=torch.float32, requires_grad=True)
    places, frequencies = torch.rand(5) * 40, rotary_frequencies(16, 1e4)
    angles = (places[:, None] * frequencies)[:, None]
    first, second = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    expected = torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)
    found = rotate(x, rotation(places, frequencies))
    assert torch.equal(found, expected)
    gradient = torch.randn_like(x)
    (mine,), (truth,) = (torch.autograd.grad(y, x, gradient) for y in (found, expected))
    assert torch.equal(mine, truth)
    half = x.detach().bfloat16()
    assert rotate(half, rotation(places, frequencies)).dtype == torch.bfloat16


def test_llama_3_scaling_stretches_long_wavelengths_only() -> None:
    # One over the power, as csm-1b was trained: the last bits differ from those of the negative power.
    plain, scaled = 1.0 / 5e5 ** (torch.arange(0, 64, 2) / 64), rotary_frequencies(64, 5e5, 32.0)
    torch.testing.assert_close(plain, rotary_frequencies(64, 5e5), rtol=1e-6, atol=0)
    wavelength = 2 * torch.pi / plain
    assert torch.equal(scaled[wavelength < 2048], plain[wavelength < 2048])
    torch.testing.assert_close(scaled[wavelength > 8192], plain[wavelength > 8192] / 32)
    between = (wavelength > 2048) & (wavelength < 8192)
    assert ((scaled < plain) & (scaled > plain / 32))[between].all()


def test_the_norm_makes_rows_of_unit_mean_square() -> None:
    x = torch.randn(5, 64) * torch.tensor([1e-2, 1, 10, 100, 1e4]).unsqueeze(1)
    torch.testing.assert_close(RMSNorm(64)(x).square().mean(-1), torch.ones(5), atol=0.11, rtol=0)
    assert RMSNorm(64)(x.bfloat16()).dtype == torch.bfloat16


class Operators(TorchDispatchMode):
    """Notes which operators run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "aten":
            self.names.append(function._schema.name.removeprefix("aten::"))
        return function(*args, **(kwargs or {}))


def test_on_cuda_a_norm_of_weights_in_its_rows_dtype_is_one_operator() -> None:
    """On tensors without values: the kernel computes in fp32 itself, and conversions are kernels too."""
    found = {}
    for dtype in (torch.bfloat16, torch.float32):
        with FakeTensorMode(), torch.no_grad(), torch.device("cuda"):
            norm = RMSNorm(64)
            norm.weight = torch.nn.Parameter(torch.ones(64, dtype=dtype))
            x = torch.empty(5, 64, device="cuda", dtype=torch.bfloat16)
            with Operators() as operators:
                assert norm(x).dtype == torch.bfloat16
        found[dtype] = operators.names
    assert found[torch.bfloat16] == ["_fused_rms_norm"]
    assert found[torch.float32] == ["_to_copy", "_fused_rms_norm", "_to_copy"]


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_queries_and_keys_rotated_as_one_tensor_are_those_rotated_apart(kv_heads) -> None:
    q, k = torch.randn(9, 4, 8, requires_grad=True), torch.randn(9, kv_heads, 8, requires_grad=True)
    to = rotation(torch.arange(9), rotary_frequencies(8, 10_000.0))
    apart, joined = rotate_both(q, k, to), joined_rotation(q, k, to)
    weights = [torch.randn_like(part) for part in apart]
    gradients = [
        torch.autograd.grad(sum((w * part).sum() for w, part in zip(weights, parts, strict=True)), (q, k))
        for parts in (apart, joined)
    ]
    for one, other in (*zip(apart, joined, strict=True), *zip(*gradients, strict=True)):
        assert torch.equal(one, other)
    with FakeTensorMode():
        q, k = torch.empty(9, 4, 8, device="cuda"), torch.empty(9, kv_heads, 8, device="cuda")
        with Operators() as operators:
            rotate_both(q, k, Rotation(*(torch.empty(9, 1, 8, device="cuda") for _ in range(2))))
    assert operators.names.count("roll") == 1 and operators.names.count("cat") == 1


def test_the_feed_forward_is_its_formula_in_value_and_gradient_and_keeps_two_tensors() -> None:
    torch.manual_seed(0)
    layer, x = FeedForward(6, 10).double(), torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    kept: list[torch.Tensor] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = layer(x)
    expected = layer.down_proj(F.silu(layer.gate_proj(x)) * layer.up_proj(x))
    torch.testing.assert_close(out, expected)
    # gate, up and their product, which the last layer reads.
    assert len({t.data_ptr() for t in kept if t.shape == (4, 10)}) == 3
    assert torch.autograd.gradcheck(layer, (x,))
