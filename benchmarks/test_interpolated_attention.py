"""Attention over resampled keys against F.interpolate and SDPA, turn by turn: forward and backward."""

import pytest
import torch

from csm_kernels import interpolated_attention


def packed(turns: int, heads: int, width: int, device: torch.device):
    """Voice rows (20-250) that read text rows (10-120), as in a training batch."""
    generator = torch.Generator().manual_seed(0)
    queries = torch.randint(20, 251, (turns,), generator=generator)
    keys = torch.randint(10, 121, (turns,), generator=generator)

    def starts(counts):
        return torch.nn.functional.pad(counts.cumsum(0), (1, 0)).to(torch.int32).to(device)

    def rows(count):
        values = torch.randn(int(count.sum()), heads, width, generator=generator)
        return values.to(device).requires_grad_()

    layout = {"cu_seqlens_q": starts(queries), "cu_seqlens_k": starts(keys)}
    return (rows(queries), rows(keys), rows(keys)), layout


@pytest.mark.parametrize("window", [12, None], ids=["window12", "global"])
@pytest.mark.parametrize("name", ["csm_kernels", "F.interpolate + softmax, looped"])
def test_attention(name, window, device, timed, benchmark):
    benchmark.group = f"interpolated_attention {device.type} 32 turns, 4 heads of 64, window {window}"
    tensors, layout = packed(32, 4, 64, device)
    impl = "auto" if name == "csm_kernels" else "reference"
    exact = interpolated_attention(*(t.double() for t in tensors), **layout, window=window, impl="reference")

    def error(chosen: str) -> float:
        return float(
            (interpolated_attention(*tensors, **layout, window=window, impl=chosen) - exact).abs().max()
        )

    # The gate: no further from float64 than fp32's own rounding in the reference.
    assert error("auto") <= 1.5 * error("reference")

    def step():
        out = interpolated_attention(*tensors, **layout, window=window, impl=impl)
        torch.autograd.grad(out.square().sum(), tensors)

    timed(step)
