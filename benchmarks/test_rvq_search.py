"""Residual codebook search against other packages' quantizers and plain torch on the same inputs."""

import pytest
import torch

from csm_kernels import rvq_search

# (rows, width, codes, levels): two batches of wide vectors, one of narrow ones, 1 and 13 streamed frames.
SHAPES = [
    (4096, 256, 2048, 8),
    (4096, 128, 1024, 32),
    (16384, 8, 1024, 9),
    (1, 128, 1024, 32),
    (13, 128, 1024, 32),
]
PEERS = [
    "FAISS",
    "torch.cdist",
    "transformers Mimi",
    "encodec",
    "vector-quantize-pytorch",
    "torch addmm",
    "torch addmm compiled",
]


def bars(shape):
    """Returns the target and stretch ratios of the peers' times to ours; Mimi's search is torch.cdist."""
    rows, width, _, _ = shape
    if rows < 20:
        return dict.fromkeys(PEERS, 2.0), {}
    faiss, cdist, encodec, vqp = (3.0, 4.0, 12.0, 30.0) if width == 8 else (1.0, 1.4, 1.8, 3.0)
    peers = {"FAISS": faiss, "torch.cdist": cdist, "transformers Mimi": cdist}
    return {**peers, "encodec": encodec, "vector-quantize-pytorch": vqp}, {"FAISS": 1.5} if width > 8 else {}


def by_cdist(x, codebooks):
    codes, residual = [], x
    for codebook in codebooks:
        nearest = torch.cdist(residual, codebook).argmin(1)
        residual = residual - codebook[nearest]
        codes.append(nearest)
    return torch.stack(codes, 1)


def best_of_torch(residual, codebook, half_norms):
    nearest = torch.addmm(half_norms, residual, codebook.T, alpha=-1).argmin(1)
    return nearest, residual - codebook[nearest]


def by_addmm(x, codebooks, half_norms, level=best_of_torch):
    codes, residual = [], x
    for codebook, norms in zip(codebooks, half_norms, strict=True):
        nearest, residual = level(residual, codebook, norms)
        codes.append(nearest)
    return torch.stack(codes, 1)


def by_faiss(x, codebooks):
    if x.device.type != "cpu":
        raise RuntimeError("faiss-cpu takes CPU tensors only")
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    tables, indices = codebooks.numpy(), []
    for table in tables:
        indices.append(faiss.IndexFlatL2(table.shape[1]))
        indices[-1].add(table)

    def search():
        codes, residual = [], x.numpy()
        for index, table in zip(indices, tables, strict=True):
            nearest = index.search(residual, 1)[1][:, 0]
            residual = residual - table[nearest]
            codes.append(torch.from_numpy(nearest))
        return torch.stack(codes, 1)

    return search


def by_mimi(x, codebooks):
    from transformers.models.mimi.modeling_mimi import MimiConfig, MimiResidualVectorQuantizer

    levels, size, width = codebooks.shape
    sizes = dict.fromkeys(("codebook_dim", "hidden_size", "vector_quantization_hidden_dimension"), width)
    quantizer = MimiResidualVectorQuantizer(MimiConfig(codebook_size=size, num_quantizers=levels, **sizes))
    quantizer.to(x.device).eval()
    for layer, codebook in zip(quantizer.layers, codebooks, strict=True):
        layer.codebook.embed_sum.copy_(codebook)
    return lambda: quantizer.encode(x.T[None])[:, 0].T


def check(codes, x, codebooks):
    """Asserts that the codes of the first rows are nearest in float64, up to the rounding of fp32."""
    rows = x[:256]
    assert torch.equal(codes[:256], rvq_search(rows, codebooks).codes), "codes depend on the batch"
    residual = rows.double()
    for level, codebook in enumerate(codebooks.double()):
        scores = 0.5 * codebook.square().sum(1) - residual @ codebook.T
        chosen = codes[: len(rows), level]
        excess = scores.gather(1, chosen[:, None])[:, 0] - scores.amin(1)
        scale = residual.norm(dim=1) * codebook.norm(dim=1).amax() + codebook.square().sum(1).amax()
        assert bool((excess <= 2.0**-21 * scale).all()), f"level {level}: a code is not the nearest"
        residual = residual - codebook[chosen]


@pytest.mark.parametrize("name", ["csm", *PEERS])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "N{}_D{}_V{}_Q{}".format(*s))
@torch.no_grad()
def test_search(name, shape, device, compare, peer_quantizer):
    rows, width, size, levels = shape

    def contenders():
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(rows, width, generator=generator).to(device)
        scale = 0.8 ** torch.arange(levels).view(-1, 1, 1)
        codebooks = (torch.randn(levels, size, width, generator=generator) * scale).to(device)
        codes = rvq_search(x, codebooks).codes
        check(codes, x, codebooks)
        # In favour of the peers: norms of the codebooks are computed before the clock starts.
        half_norms = 0.5 * codebooks.square().sum(2)

        def same(call):
            # Another rounding may choose another code at nearly the same distance, and later levels then
            # differ.
            equal = (call() == codes).float().mean()
            assert equal > 0.98, f"only {equal:.1%} of the codes are ours"
            return call

        def other(package):
            search = peer_quantizer(package, codebooks)
            return same(lambda: search(x))

        def compiled():
            level = torch.compile(best_of_torch, dynamic=False)
            return same(lambda: by_addmm(x, codebooks, half_norms, level))

        return {
            "csm": lambda: lambda: rvq_search(x, codebooks),
            "FAISS": lambda: same(by_faiss(x, codebooks)),
            "torch.cdist": lambda: same(lambda: by_cdist(x, codebooks)),
            "transformers Mimi": lambda: same(by_mimi(x, codebooks)),
            "encodec": lambda: other("encodec"),
            "vector-quantize-pytorch": lambda: other("vector-quantize-pytorch"),
            "torch addmm": lambda: same(lambda: by_addmm(x, codebooks, half_norms)),
            "torch addmm compiled": compiled,
        }

    least, hoped = bars(shape)
    compare(
        name,
        f"rvq_search N {rows}, D {width}, V {size}, Q {levels}",
        contenders,
        flops=2 * rows * width * size * levels,
        moved=4 * (3 * rows * width + levels * size * width) + 8 * rows * levels,
        bars=least,
        stretch=hoped,
    )
