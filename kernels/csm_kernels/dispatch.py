"""Chooses the implementation of an operation by the tensors' device, never by trying one."""

import importlib.util
from functools import lru_cache

import torch

from csm_kernels.native import instruction_sets

IMPLEMENTATIONS = ("auto", "reference", "blocked", "cpu", "triton")


@lru_cache(maxsize=1)
def has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def choose(impl: str, device: torch.device, dtype: torch.dtype, *, triton_fits: bool = True) -> str:
    """Returns the implementation that runs for tensors of a device and dtype.

    "auto" is Triton on CUDA and the compiled kernel on CPU. Plain torch ("blocked") replaces either where it
    is not installed, and computes float64. `triton_fits` is False for shapes that the operation's Triton
    kernel does not support.

    Raises:
        ValueError: `impl` is unknown or cannot run here; the message says what it needs.
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl: expected one of {', '.join(IMPLEMENTATIONS)}, got {impl!r}")
    if impl in ("reference", "blocked"):
        return impl
    fits = dtype != torch.float64
    able = {
        "cpu": fits and device.type == "cpu" and bool(instruction_sets()),
        "triton": fits and triton_fits and device.type == "cuda" and has_triton(),
    }
    if impl == "auto":
        return next((name for name, can in able.items() if can), "blocked")
    if not able[impl]:
        needs = {
            "cpu": "CPU tensors and kernels compiled at the installation",
            "triton": "CUDA tensors of a shape it takes, and the package triton",
        }
        raise ValueError(
            f"impl: {impl!r} needs {needs[impl]}, and no float64; got {dtype} on {device}. Use impl='auto'"
        )
    return impl
