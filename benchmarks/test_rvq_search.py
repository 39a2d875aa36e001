"""Residual codebook search against plain PyTorch: the reference and the cdist form that codecs use."""

import pytest
import torch

from csm_kernels import rvq_search

# rows, width, codes, levels: a batch of the quickstart tokenizer, two large ones, one streamed frame.
SHAPES = [(768, 64, 1024, 32), (4096, 128, 1024, 32), (4096, 256, 2048, 8), (1, 64, 1024, 32)]


def by_cdist(x: torch.Tensor, codebooks: torch.Tensor) -> torch.Tensor:
    codes, residual = [], x
    for codebook in codebooks:
        nearest = torch.cdist(residual, codebook).argmin(1)
        residual = residual - codebook[nearest]
        codes.append(nearest)
    return torch.stack(codes, 1)


CALLS = {
    "csm_kernels": lambda x, codebooks: rvq_search(x, codebooks).codes,
    "reference": lambda x, codebooks: rvq_search(x, codebooks, impl="reference").codes,
    "torch.cdist": by_cdist,
}


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "N{}_D{}_V{}_Q{}".format(*s))
@pytest.mark.parametrize("name", CALLS)
def test_search(name, shape, device, timed, benchmark):
    rows, width, codes, levels = shape
    benchmark.group = f"rvq_search {device.type} N {rows}, D {width}, V {codes}, Q {levels}"
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, width, generator=generator).to(device)
    scale = 0.8 ** torch.arange(levels).view(-1, 1, 1)
    codebooks = (torch.randn(levels, codes, width, generator=generator) * scale).to(device)
    expected = rvq_search(x[:64].double(), codebooks.double(), impl="reference").codes
    found = CALLS["csm_kernels"](x[:64], codebooks)
    # The gate: a wrong search is not timed. Rows that differ from float64 must be ties within fp32.
    assert (found == expected).float().mean() > 0.999
    timed(lambda: CALLS[name](x, codebooks), flops=2.0 * rows * width * codes * levels)
