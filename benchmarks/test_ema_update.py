"""The EMA codebook update against the one-hot product of public codecs and against torch's index_add_."""

import pytest
import torch

from csm_kernels import ema_update, rvq_search

SHAPES = [(4096, 256, 2048, 8), (4096, 128, 1024, 32)]
BARS = {"one-hot product": 10.0}
DECAY, EPSILON = 0.99, 1e-5


def one_hot_sums(residual, codes, size):
    assigned = torch.nn.functional.one_hot(codes, size).to(residual.dtype)
    return assigned.sum(0), (residual.T @ assigned).T


def scattered_sums(residual, codes, size):
    # Fast, but fp32 sums depend on the order of the rows and so on how a step is split.
    counts = torch.bincount(codes, minlength=size).to(residual.dtype)
    return counts, residual.new_zeros(size, residual.shape[1]).index_add_(0, codes, residual)


def averaged(sums, x, codes, codebooks, usage, vector_sum):
    """EnCodec's moving average with Laplace smoothing, without the revival of codes that ours includes."""
    residual = x
    for level, codebook in enumerate(codebooks):
        counts, vectors = sums(residual, codes[:, level], len(codebook))
        residual = residual - codebook[codes[:, level]]
        usage[level].mul_(DECAY).add_(counts, alpha=1 - DECAY)
        vector_sum[level].mul_(DECAY).add_(vectors, alpha=1 - DECAY)
        total = usage[level].sum()
        smoothed = (usage[level] + EPSILON) / (total + len(codebook) * EPSILON) * total
        torch.div(vector_sum[level], smoothed[:, None], out=codebook)


@pytest.mark.parametrize("name", ["csm", "one-hot product", "torch index_add_"])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "N{}_D{}_V{}_Q{}".format(*s))
@torch.no_grad()
def test_update(name, shape, device, compare):
    rows, width, size, levels = shape

    def contenders():
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(rows, width, generator=generator).to(device)
        codebooks = torch.randn(levels, size, width, generator=generator).to(device)
        codes = rvq_search(x, codebooks).codes

        def state():
            usage = torch.full((levels, size), rows / size, device=device)
            return codebooks.clone(), usage, codebooks * (rows / size)

        def after(**options):
            changed = state()
            ema_update(x, codes, *changed, step=1, decay=DECAY, epsilon=EPSILON, **options)
            return changed

        expected, threads = after(impl="reference"), torch.get_num_threads()
        for count in {1, threads, 3}:
            torch.set_num_threads(count)
            try:
                found = after()
            finally:
                torch.set_num_threads(threads)
            for a, b in zip(found, expected, strict=True):
                # On CUDA the sum of a level's usage may differ in its last bit.
                same = (
                    torch.equal(a, b) if device.type == "cpu" else torch.allclose(a, b, rtol=1e-6, atol=1e-7)
                )
                assert same, f"differs from the reference with {count} threads"
        kept = state()

        def peer(sums):
            own = state()
            averaged(sums, x, codes, *own)
            for a, b in zip(own, after(revive_below=0.0), strict=True):
                torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
            return lambda: averaged(sums, x, codes, *own)

        return {
            "csm": lambda: lambda: ema_update(x, codes, *kept, step=1),
            "one-hot product": lambda: peer(one_hot_sums),
            "torch index_add_": lambda: peer(scattered_sums),
        }

    state_size = levels * size * (2 * width + 1)
    additions = 2 * rows * width * levels
    compare(
        name,
        f"ema_update N {rows}, D {width}, V {size}, Q {levels}",
        contenders,
        flops=additions * size if name == "one-hot product" else additions,
        moved=4 * (rows * width + 2 * state_size) + 8 * rows * levels,
        bars=BARS,
    )
