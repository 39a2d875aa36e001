"""Which sequences flash attention takes, and that its band sees what the interpolated attention sees."""

import pytest
import torch
import torch.nn.functional as F

from csm.network import varlen
from csm.network.cross_attention import CrossAttention
from csm.network.text_reading import TextReading
from csm.network.voice_reading import VoiceReading
from csm.sequences.packed_batch import TextSpan, VoiceSpan


def flash(q, k, v, ends_q, ends_k, most_q, most_k, band):
    """Flash attention's manual in plain torch: sequences aligned at their ends, rows without a key give 0."""
    outs, left, right = [], *band
    ends_q, ends_k = ends_q.tolist(), ends_k.tolist()
    assert max(b - a for a, b in zip(ends_q, ends_q[1:], strict=False)) == most_q
    assert max(b - a for a, b in zip(ends_k, ends_k[1:], strict=False)) == most_k
    for first, last, start, end in zip(ends_q, ends_q[1:], ends_k, ends_k[1:], strict=False):
        q1, k1, v1 = (
            t[a:b].transpose(0, 1).float() for t, a, b in ((q, first, last), (k, start, end), (v, start, end))
        )
        place = torch.arange(last - first)[:, None] + (end - start) - (last - first)
        key = torch.arange(end - start)
        seen = ((key >= place - left) | (left < 0)) & ((key <= place + right) | (right < 0))
        scores = (q1 @ k1.transpose(1, 2) * q.shape[2] ** -0.5).masked_fill(~seen, -torch.inf)
        weights = scores.softmax(-1).masked_fill(~seen.any(1, keepdim=True), 0)
        outs.append((weights @ v1).transpose(0, 1).to(q.dtype))
    return torch.cat(outs)


@pytest.fixture
def on_a_gpu(monkeypatch):
    """Tensors that say they are on an H100, and flash attention in plain torch; gives its calls' bands."""
    bands = []

    def recorded(*arguments):
        bands.append(arguments[-1])
        return flash(*arguments)

    monkeypatch.setattr(varlen, "KERNEL", recorded)
    monkeypatch.setattr(varlen, "HALF", (torch.float32,))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))
    return bands


def layer() -> CrossAttention:
    torch.manual_seed(0)
    made = CrossAttention(16, 2, 10_000.0, 1.0)
    made.reset_parameters(0.2)
    return made


@pytest.mark.parametrize("window", [2, 3, 9])
@pytest.mark.parametrize("unfinished", [0, 1])
def test_a_flat_voice_reading_takes_flash_attention_and_reads_the_same(window, unfinished, on_a_gpu):
    spans, key = [], 0
    for frames in (7, 1, 12):
        ends = torch.tensor([0.5, 1.0]) * frames
        spans.append(VoiceSpan(key, frames + 1 - unfinished, key, 2, frames, ends=ends))
        key += frames
    x, attention = torch.randn(sum(s.num_queries for s in spans), 16), layer()
    reading = VoiceReading.pack(spans, torch.randn(key, 16), [attention], window)
    flat = attention(x, reading, 0)
    assert on_a_gpu == [(window - 2 + unfinished, window + 2 - unfinished)]
    varlen.KERNEL = None
    torch.testing.assert_close(flat, attention(x, reading, 0), atol=1e-5, rtol=1e-5)


def test_a_text_reading_takes_flash_attention_and_reads_the_same(on_a_gpu):
    spans = [TextSpan(0, 3, 0, 5), TextSpan(3, 1, 5, 9), TextSpan(4, 6, 14, 2)]
    x, attention = torch.randn(10, 16), layer()
    reading = TextReading.pack(spans, torch.randn(16, 16), [attention], 2.0)
    flat = attention(x, reading, 0)
    assert on_a_gpu == [(-1, -1)]
    varlen.KERNEL = None
    torch.testing.assert_close(flat, attention(x, reading, 0), atol=1e-5, rtol=1e-5)


def test_stretched_text_and_single_rows_keep_the_interpolated_attention(on_a_gpu):
    attention = layer()
    even = VoiceReading.pack([VoiceSpan(0, 8, 0, 3, 7)], torch.randn(3, 16), [attention], 3)
    ends = torch.tensor([7.0])
    flat = VoiceReading.pack([VoiceSpan(0, 8, 0, 1, 7, ends=ends)], torch.randn(7, 16), [attention], 3)
    assert even.flat is None and flat.flat is not None
    assert flat.step(4).flat is None and VoiceReading.concat([flat.step(4)]).flat is None
    attention(torch.randn(8, 16), even, 0)
    attention(torch.randn(1, 16), flat.step(4), 0)
    assert on_a_gpu == []


@pytest.mark.parametrize("window", range(5))
def test_a_band_is_given_only_where_one_fits_all_sequences(window):
    for queries, keys, place in (
        ([8, 3], [7, 2], 1),
        ([5], [9], 0),
        ([4, 4], [4, 6], 0),
        ([0, 6], [1, 5], 1),
    ):
        band = varlen.band_of(queries, keys, place, window)
        for q, k in zip(queries, keys, strict=True):
            for i in range(q):
                if band is not None:
                    seen = {j for j in range(k) if i + k - q - band[0] <= j <= i + k - q + band[1]}
                    assert seen == {j for j in range(k) if abs(i + place - j) <= window}
    assert varlen.band_of([4, 4], [4, 6], 0, window) is None
    assert (varlen.band_of([8, 3], [7, 2], 1, window) is None) == (window < 2)
    assert varlen.band_of([0, 6], [1, 5], 1, 4) == (2, 6)
    assert varlen.band_of([4, 9], [4, 6], 0, None) == (-1, -1)


def test_other_rows_than_a_modern_gpus_in_half_precision_are_left_to_others(monkeypatch):
    monkeypatch.setattr(varlen, "KERNEL", flash)
    rows = torch.zeros(3, 2, 16, dtype=torch.bfloat16)
    assert varlen.kernel_for(rows) is None
    monkeypatch.setattr(torch.Tensor, "is_cuda", property(lambda self: True))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert varlen.kernel_for(rows) is flash
    assert varlen.kernel_for(rows.float()) is None and varlen.kernel_for(rows[..., :12]) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert varlen.kernel_for(rows) is None


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available() or varlen.KERNEL is None, reason="no CUDA device or kernel")
@pytest.mark.parametrize("band", [(-1, -1), (-1, 0), (1, 5)])
def test_the_kernel_of_this_machine_is_the_manual_and_gives_the_same_bits_twice(band):
    generator = torch.Generator().manual_seed(0)
    counts_q, counts_k = [9, 1, 70], [8, 0, 69]
    q, k, v = (
        torch.randn(sum(counts), 4, 64, generator=generator).bfloat16().cuda().requires_grad_()
        for counts in (counts_q, counts_k, counts_k)
    )
    ends = [F.pad(torch.tensor(counts).cumsum(0), (1, 0)).int() for counts in (counts_q, counts_k)]
    sizes = max(counts_q), max(counts_k)
    results = []
    torch.use_deterministic_algorithms(True)
    for _ in range(2):
        out = varlen.KERNEL(q, k, v, *(e.cuda() for e in ends), *sizes, band)
        results.append((out, *torch.autograd.grad(out.float().square().sum(), (q, k, v))))
    torch.use_deterministic_algorithms(False)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
    expected = flash(q.cpu(), k.cpu(), v.cpu(), *ends, *sizes, band)
    torch.testing.assert_close(results[0][0].cpu(), expected, atol=2e-2, rtol=2e-2)
