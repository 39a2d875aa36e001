"""The three operations on a CUDA device: the CPU's results, and no synchronisation where none is promised."""

import pytest
import torch

from csm_kernels import ema_update, interpolated_attention, rvq_search

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def quantizer() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    codebooks = torch.randn(8, 500, 64, generator=generator) * 0.8 ** torch.arange(8)[:, None, None]
    return torch.randn(2000, 64, generator=generator), codebooks


def test_codes_are_the_cpus_codes_up_to_rounding_and_the_same_bits_for_any_split_and_tf32_setting():
    x, codebooks = quantizer()
    expected = rvq_search(x, codebooks, impl="blocked")
    found = rvq_search(x.cuda(), codebooks.cuda())
    assert (found.codes.cpu() != expected.codes).any(1).float().mean() < 2e-3
    torch.testing.assert_close(found.commitment.cpu(), expected.commitment, rtol=1e-3, atol=1e-6)
    parts = torch.cat(
        [rvq_search(part, codebooks.cuda()).codes for part in x.cuda().split([1, 13, 986, 1000])]
    )
    assert torch.equal(parts, found.codes)
    torch.set_float32_matmul_precision("medium")
    with torch.autocast("cuda", dtype=torch.bfloat16):
        reduced = rvq_search(x.cuda(), codebooks.cuda())
    torch.set_float32_matmul_precision("highest")
    assert torch.equal(reduced.codes, found.codes)


def test_of_equal_codewords_the_lowest_index_wins():
    x, codebooks = quantizer()
    codebooks[:, 250:] = codebooks[:, :250]
    assert int(rvq_search(x.cuda(), codebooks.cuda()).codes.max()) < 250


def test_the_update_has_the_cpus_bits():
    x, codebooks = quantizer()
    codes = rvq_search(x, codebooks).codes
    states = []
    for device in ("cpu", "cuda"):
        state = (
            codebooks.to(device),
            torch.zeros(8, 500, device=device),
            torch.zeros(8, 500, 64, device=device),
        )
        state = tuple(t.clone() for t in state)
        for step in range(3):
            ema_update(x.to(device), codes.to(device), *state, step=step)
        states.append(state)
    # usage totals are summed in another order on another device: the last bit of a double may differ
    for host, device in zip(*states, strict=True):
        torch.testing.assert_close(device.cpu(), host, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("impl", ["triton", "blocked"])
def test_every_implementation_is_there_on_the_device_and_repeats_its_bits(impl):
    x, codebooks = (t.cuda() for t in quantizer())
    first, again = (rvq_search(x, codebooks, impl=impl) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    ends = torch.tensor([0, 2000], device="cuda"), torch.tensor([0, 500], device="cuda")
    where = (*ends, ends[0].diff(), torch.zeros(1, dtype=torch.int64, device="cuda"), 8, 0.125)
    q, k = x.view(2000, 2, 32), x[:500].view(500, 2, 32)
    results = [torch.ops.csm.interpolated_attention(q, k, k, *where, impl) for _ in range(2)]
    for output, lse in results:
        assert output.shape == q.shape and lse.shape == q.shape[:2] and lse.isfinite().all()
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_search_and_update_never_wait_for_the_device():
    x, codebooks = (t.cuda() for t in quantizer())
    state = codebooks, torch.zeros(8, 500, device="cuda"), torch.zeros(8, 500, 64, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(2):
            ema_update(x, rvq_search(x, codebooks).codes, *state, step=step, num_levels=6)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_attention_is_the_references(window, dtype):
    generator = torch.Generator().manual_seed(0)
    queries, keys = torch.tensor([0, 70, 70, 200]), torch.tensor([0, 30, 34, 120])
    q, k, v = (torch.randn(n, 4, 32, generator=generator, dtype=torch.float64) for n in (200, 120, 120))
    results = []
    for device, kind, impl in (("cpu", torch.float64, "reference"), ("cuda", dtype, "auto")):
        qkv = [t.to(device, dtype).to(kind).requires_grad_() for t in (q, k, v)]
        ends = {"cu_seqlens_q": queries.to(device), "cu_seqlens_k": keys.to(device)}
        output = interpolated_attention(*qkv, **ends, window=window, impl=impl)
        results.append([output, *torch.autograd.grad(output.float().square().sum(), qkv)])
    limit = {torch.float64: 1e-6, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    for exact, found in zip(*results, strict=True):
        error = (found.cpu().double() - exact.double()).norm() / exact.double().norm()
        assert error < limit
