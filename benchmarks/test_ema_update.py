"""The codebook update against the one-hot product that public codecs use."""

import pytest
import torch

from csm_kernels import ema_update, rvq_search

SHAPES = [(768, 64, 1024, 32), (4096, 128, 1024, 32)]


def one_hot(x, codes, codebooks, usage, vector_sum, decay=0.99):
    """EnCodec's form without revival: V columns of zeros and ones times the rows, level by level."""
    residual = x
    for level in range(codebooks.shape[0]):
        assigned = torch.nn.functional.one_hot(codes[:, level], codebooks.shape[1]).to(x.dtype)
        usage[level].lerp_(assigned.sum(0), 1 - decay)
        vector_sum[level].lerp_(assigned.T @ residual, 1 - decay)
        residual = residual - codebooks[level][codes[:, level]]
        codebooks[level] = vector_sum[level] / (usage[level] + 1e-5).unsqueeze(1)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "N{}_D{}_V{}_Q{}".format(*s))
@pytest.mark.parametrize("name", ["csm_kernels", "reference", "one-hot product"])
def test_update(name, shape, device, timed, benchmark):
    rows, width, size, levels = shape
    benchmark.group = f"ema_update {device.type} N {rows}, D {width}, V {size}, Q {levels}"
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, width, generator=generator).to(device)
    books = torch.randn(levels, size, width, generator=generator).to(device)
    codes = rvq_search(x, books).codes

    def state():
        return books.clone(), torch.ones(levels, size, device=device), books.clone()

    ours, reference = state(), state()
    ema_update(x, codes, *ours, step=1)
    ema_update(x, codes, *reference, step=1, impl="reference")
    assert all(torch.equal(a, b) for a, b in zip(ours, reference, strict=True))
    kept = state()
    if name == "one-hot product":
        timed(lambda: one_hot(x, codes, *kept))
    else:
        impl = "auto" if name == "csm_kernels" else "reference"
        timed(lambda: ema_update(x, codes, *kept, step=1, impl=impl))
