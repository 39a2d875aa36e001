"""Runs every Triton kernel once on tiny shapes, for compute-sanitizer. Needs a CUDA device.

for tool in memcheck racecheck synccheck initcheck; do
    compute-sanitizer --tool $tool --error-exitcode 9 python benchmarks/sanitize_kernels.py || echo $tool
done
"""

import sys
from pathlib import Path

import torch

sys.path[:0] = [str(Path(__file__).parents[1] / "kernels")]
from csm_kernels import ema_update, interpolated_attention, rvq_search  # noqa: E402
from csm_kernels.rvq_search import triton_kernel  # noqa: E402


def main() -> None:
    generator = torch.Generator().manual_seed(0)
    x, codebooks = (torch.randn(*size, generator=generator).cuda() for size in ((70, 24), (2, 70, 24)))
    for kernel in ("levels", "scan", "split"):
        triton_kernel.launch(x, codebooks, *triton_kernel.allocate(x, codebooks), kernel=kernel)
    codes = rvq_search(x, codebooks, impl="triton").codes
    state = codebooks, codebooks.new_ones(2, 70), codebooks.clone()
    ema_update(x, codes, *state, step=1, impl="triton")
    ends = {
        "cu_seqlens_q": torch.tensor([0, 34, 40]).cuda(),
        "cu_seqlens_k": torch.tensor([0, 17, 20]).cuda(),
    }
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        for window in (None, 5):
            q, k, v = (torch.randn(n, 2, 64).to("cuda", dtype).requires_grad_() for n in (40, 20, 20))
            interpolated_attention(q, k, v, **ends, window=window, impl="triton").sum().backward()
    torch.cuda.synchronize()
    print("all kernels ran")


if __name__ == "__main__":
    main()
