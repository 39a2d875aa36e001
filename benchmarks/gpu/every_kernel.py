"""Runs every kernel of csm_kernels once, forward and backward: what sanitizer and profiler look at.

compute-sanitizer --tool memcheck python benchmarks/gpu/every_kernel.py
python benchmarks/gpu/every_kernel.py large
"""

from __future__ import annotations

import sys

import torch

from csm_kernels import ema_update, interpolated_attention, rvq_search


def run(rows: int, levels: int, size: int, width: int, keys: int, device: str) -> None:
    """Searches and updates codebooks with `rows` rows, and attends from as many queries to `keys` keys."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, width, generator=generator).to(device)
    codebooks = torch.randn(levels, size, width, generator=generator).to(device)
    codes = rvq_search(x, codebooks).codes
    state = torch.zeros(levels, size, device=device), torch.zeros(levels, size, width, device=device)
    ema_update(x, codes, codebooks, *state, step=1)
    ends = [torch.tensor([0, n // 3, n], device=device) for n in (rows, keys)]
    for dtype, window in ((torch.float32, None), (torch.bfloat16, 3)):
        shapes = (rows, keys, keys)
        q, k, v = (torch.randn(n, 4, 64, device=device, dtype=dtype).requires_grad_() for n in shapes)
        out = interpolated_attention(q, k, v, cu_seqlens_q=ends[0], cu_seqlens_k=ends[1], window=window)
        out.float().square().sum().backward()


if __name__ == "__main__":
    place = "cuda" if torch.cuda.is_available() else "cpu"
    sizes = [(16384, 8, 1024, 128, 2048)] if "large" in sys.argv else [(1, 2, 9, 8, 1), (70, 3, 40, 24, 21)]
    for numbers in sizes * (3 if "large" in sys.argv else 1):
        run(*numbers, place)
    if place == "cuda":
        torch.cuda.synchronize()
    print("every kernel ran")
