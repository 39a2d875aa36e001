"""A training step of the quantizer (search, moving average, revival) against packages that have one."""

import pytest
import torch

from csm_kernels import ema_update, rvq_search

SHAPES = [(4096, 256, 2048, 8), (4096, 128, 1024, 32)]
BARS = {"encodec": 4.0, "vector-quantize-pytorch": 5.0}


@pytest.mark.parametrize("name", ["csm", *BARS])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "N{}_D{}_V{}_Q{}".format(*s))
@torch.no_grad()
def test_step(name, shape, device, compare, peer_quantizer):
    rows, width, size, levels = shape

    def contenders():
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(rows, width, generator=generator).to(device)
        scale = 0.8 ** torch.arange(levels).view(-1, 1, 1)
        codebooks = (torch.randn(levels, size, width, generator=generator) * scale).to(device)

        def state():
            usage = torch.full((levels, size), rows / size, device=device)
            return codebooks.clone(), usage, codebooks * (rows / size)

        def step(state, number, impl="auto"):
            codes = rvq_search(x, state[0], impl=impl).codes
            ema_update(x, codes, *state, step=number, impl=impl)
            return codes

        ours, reference = state(), state()
        codes = step(ours, 0)
        assert (codes == rvq_search(x, codebooks, impl="reference").codes).float().mean() > 0.999
        ema_update(x, codes, *reference, step=0, impl="reference")
        for a, b in zip(ours, reference, strict=True):
            same = torch.equal(a, b) if device.type == "cpu" else torch.allclose(a, b, rtol=1e-6, atol=1e-7)
            assert same, "the update differs from the reference"

        def peer(package):
            call = peer_quantizer(package, codebooks, rows)
            equal = (call(x) == codes).float().mean()
            assert equal > 0.98, f"only {equal:.1%} of the codes are ours"
            return lambda: call(x)

        numbers = iter(range(1, 1 << 30))
        return {
            "csm": lambda: lambda: step(ours, next(numbers)),
            "encodec": lambda: peer("encodec"),
            "vector-quantize-pytorch": lambda: peer("vector-quantize-pytorch"),
        }

    search = 2 * rows * size * width * levels
    compare(
        name,
        f"training step N {rows}, D {width}, V {size}, Q {levels}",
        contenders,
        # encodec needs one more product, by one-hot rows, vector-quantize-pytorch two.
        flops=search * {"csm": 1, "encodec": 2, "vector-quantize-pytorch": 3}[name],
        moved=4 * (rows * width + 2 * levels * size * (2 * width + 1)) + 8 * rows * levels,
        bars=BARS,
    )
