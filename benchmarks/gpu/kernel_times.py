"""Step 5: times of the kernels beside what torch and others offer for the same work.

Events include the launches (`ms`), a replayed graph does not (`graph_ms`). A row is written only if the
result is right; the gate is that no peer's `graph_ms` (else `ms`) is less than ours.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from bare import NO_DEVICE, begin
from shapes import (
    ATTENTIONS,
    HEAD,
    SEARCHES,
    SMALL_ATTENTIONS,
    SMALL_SEARCHES,
    UPDATES,
    AttentionShape,
    SearchShape,
)
from timing import Stopwatch
from torch import Tensor

from csm_kernels import ema_update, interpolated_attention, rvq_search

Call = Callable[[], object]
# Milliseconds on an H100 by row, written before any was measured (docs/GPU.md).
PREDICTED: dict[str, float] = json.loads(Path(__file__).with_name("predictions.json").read_text())


def add(rows, watch: Stopwatch, name: str, ours: Call, peers: dict[str, Call], **values: Any) -> None:
    """Times our call and its peers one after the other and writes one row."""
    times = {key: (watch.eager(call), watch.replayed(call)) for key, call in {"": ours, **peers}.items()}
    best = {key: eager if replay is None else replay for key, (eager, replay) in times.items()}
    row: dict[str, Any] = {"ms": times[""][0], "graph_ms": times[""][1], "predicted_ms": PREDICTED.get(name)}
    for key in peers:
        row[key] = best[key]
    if watch.cuda and peers:
        row["gate"] = all(best[""] <= best[key] for key in peers)
    rows.add(name, **row, **values)


# ---- rvq_search ----


def quantizer(shape: SearchShape, device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scale = 0.9 ** torch.arange(shape.levels)[:, None, None]
    codebooks = torch.randn(shape.levels, shape.size, shape.width, generator=generator) * scale
    return torch.randn(shape.rows, shape.width, generator=generator).to(device), codebooks.to(device)


def by_addmm(x: Tensor, codebooks: Tensor, half_norms: Tensor, tf32: bool) -> Tensor:
    torch.backends.cuda.matmul.allow_tf32 = tf32
    codes, residual = [], x
    for codebook, norms in zip(codebooks, half_norms, strict=True):
        nearest = torch.addmm(norms, residual, codebook.T, alpha=-1).argmin(1)
        residual = residual - codebook[nearest]
        codes.append(nearest)
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.stack(codes, 1)


def faiss_search(x: Tensor, codebooks: Tensor) -> Call | None:
    """Returns the same search by FAISS on the GPU; None where its GPU package is not installed."""
    try:
        import faiss
        import faiss.contrib.torch_utils  # noqa: F401
    except ImportError:
        return None
    if not hasattr(faiss, "StandardGpuResources") or x.device.type != "cuda":
        return None
    resources, indices = faiss.StandardGpuResources(), []
    for codebook in codebooks:
        indices.append(faiss.GpuIndexFlatL2(resources, codebook.shape[1]))
        indices[-1].add(codebook)

    def search() -> None:
        residual = x
        for index, codebook in zip(indices, codebooks, strict=True):
            residual = residual - codebook[index.search(residual, 1)[1][:, 0]]

    return search


def by_fp32_kernel(x: Tensor, codebooks: Tensor) -> Call:
    """Returns the search without a scan, which has the same codes."""
    from csm_kernels.rvq_search import triton_kernel

    outputs = triton_kernel.allocate(x, codebooks)
    return partial(triton_kernel.launch, x, codebooks, *outputs, kernel="levels")


def time_search(rows, watch: Stopwatch, shape: SearchShape) -> None:
    x, codebooks = quantizer(shape, watch.device)
    half_norms = 0.5 * codebooks.square().sum(2)
    found, expected = rvq_search(x, codebooks).codes, rvq_search(x, codebooks, impl="blocked").codes
    wrong = float((found != expected).any(1).float().mean())
    rows.add(f"rvq_search codes {shape.title}", differing_rows=wrong, gate=wrong <= 2e-3)
    peers: dict[str, Call] = {"addmm_fp32_ms": partial(by_addmm, x, codebooks, half_norms, False)}
    times: dict[str, float] = {}
    if watch.cuda:
        # Its codes differ from fp32's, so that it is no peer.
        times["addmm_tf32_ms"] = watch.eager(partial(by_addmm, x, codebooks, half_norms, True))
        times["fp32_kernel_ms"] = watch.eager(by_fp32_kernel(x, codebooks))
        if (by_faiss := faiss_search(x, codebooks)) is not None:
            peers["faiss_ms"] = by_faiss
    add(rows, watch, f"rvq_search {shape.title}", partial(rvq_search, x, codebooks), peers, **times)


# ---- ema_update ----


def time_update(rows, watch: Stopwatch, shape: SearchShape) -> None:
    x, codebooks = quantizer(shape, watch.device)
    codes = rvq_search(x, codebooks).codes
    shape_of_sums = (shape.levels, shape.size)
    start = codebooks.clone(), codebooks.new_zeros(shape_of_sums), torch.zeros_like(codebooks)

    def after() -> tuple[Tensor, ...]:
        state = tuple(t.clone() for t in start)
        ema_update(x, codes, *state, step=1)
        return state

    same = all(torch.equal(a, b) for a, b in zip(after(), after(), strict=True))
    rows.add(f"ema_update repeats its bits {shape.title}", gate=same)
    state = tuple(t.clone() for t in start)

    def scattered() -> None:
        residual = x
        for level, codebook in enumerate(codebooks):
            chosen = codes[:, level]
            torch.zeros_like(codebook).index_add_(0, chosen, residual)
            codebook.new_zeros(len(codebook)).index_add_(0, chosen, torch.ones_like(residual[:, 0]))
            residual = residual - codebook[chosen]

    call = partial(ema_update, x, codes, *state, step=1)
    add(rows, watch, f"ema_update {shape.title}", call, {"index_add_ms": scattered})


# ---- interpolated_attention ----


def flash(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """SDPA on [B, H, T, d]; flash in half precision, whatever fits in fp32."""
    return F.scaled_dot_product_attention(q, k, v)


def materialised(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The definition: keys and values resampled in memory, then SDPA."""
    keys, values = (
        F.interpolate(t.flatten(0, 1).mT, size=q.shape[2], mode="linear", align_corners=False).mT.unflatten(
            0, t.shape[:2]
        )
        for t in (k, v)
    )
    return flash(q, keys.to(q.dtype), values.to(q.dtype))


def both_ways(call: Callable[..., Tensor], tensors: list[Tensor], gradient: Tensor) -> Call:
    def run() -> object:
        return torch.autograd.grad(call(*tensors), tensors, gradient)

    return run


def time_attention(rows, watch: Stopwatch, shape: AttentionShape, dtype: torch.dtype) -> None:
    counts = (shape.length, shape.keys, shape.keys)
    generator = torch.Generator().manual_seed(0)
    dense = [
        torch.randn(shape.batch, shape.heads, n, HEAD, generator=generator).to(watch.device, dtype)
        for n in counts
    ]
    packed = [t.transpose(1, 2).flatten(0, 1).contiguous() for t in dense]
    ends = {
        f"cu_seqlens_{name}": torch.arange(shape.batch + 1, dtype=torch.int32, device=watch.device) * n
        for name, n in (("q", shape.length), ("k", shape.keys))
    }
    op = partial(interpolated_attention, **ends, window=shape.window)
    exact = [t[:n] for t, n in zip(packed, counts, strict=True)]  # the first sequence
    one = {name: end[:2] for name, end in ends.items()}
    truth = interpolated_attention(*(t.double() for t in exact), **one, window=shape.window, impl="blocked")
    error = float((op(*packed)[: shape.length].double() - truth).norm() / truth.norm())
    limit = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    kind = str(dtype).removeprefix("torch.")
    title = f"{shape.title} {kind}"
    rows.add(f"attention is right {title}", error=error, gate=error < limit)
    peers: dict[str, Callable[..., Tensor]] = {}
    if shape.window is None:
        peers = {"resampled_sdpa_ms": materialised}
    gradient = torch.randn_like(packed[0])
    for t in (*dense, *packed):
        t.requires_grad_()
    for way in ("forward", "both"):
        if way == "forward":
            ours: Call = partial(op, *packed)
            others: dict[str, Call] = {name: partial(peer, *dense) for name, peer in peers.items()}
            raw: Call = partial(flash, *dense)
        else:
            ours = both_ways(op, packed, gradient)
            far = torch.randn_like(dense[0])
            others = {name: both_ways(peer, dense, far) for name, peer in peers.items()}
            raw = both_ways(flash, dense, far)
        values = {"sdpa_raw_keys_ms": watch.replayed(raw) or watch.eager(raw)}  # other values: no peer
        with torch.set_grad_enabled(way == "both"):
            add(rows, watch, f"attention {way} {title}", ours, others, **values)


def work(cuda: bool) -> Iterator[Callable[..., None]]:
    """Yields every group in the order of its worth."""
    attentions = ATTENTIONS if cuda else SMALL_ATTENTIONS
    for shape in SEARCHES if cuda else SMALL_SEARCHES:
        yield partial(time_search, shape=shape)
    for pair in attentions:
        yield partial(time_attention, shape=pair, dtype=torch.bfloat16)
    for shape in UPDATES if cuda else SMALL_SEARCHES:
        yield partial(time_update, shape=shape)
    for pair in attentions:
        yield partial(time_attention, shape=pair, dtype=torch.float32)


def main() -> None:
    rows, device, _ = begin()
    watch = Stopwatch(device)
    for group in work(watch.cuda):
        try:
            group(rows, watch)
        except Exception as error:  # of one shape; the others are still worth their time
            title = f"{group.func.__name__} {group.keywords['shape'].title}"
            rows.add(title, gate=False, error=f"{type(error).__name__}: {str(error)[:300]}")
    if not watch.cuda:
        rows.skip("times", f"{NO_DEVICE}: times of the rehearsal mean nothing")


if __name__ == "__main__":
    main()
