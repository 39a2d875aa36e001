"""Chooses the implementation of an operation by the tensors' device, never by trying one."""

import importlib.util
import warnings
from functools import cache, lru_cache

import torch

from csm_kernels.native import instruction_sets

OLDEST = 8, 0  # compute capability: before, Triton has no matrix instruction for bf16, and the kernels spill

IMPLEMENTATIONS = ("auto", "reference", "blocked", "cpu", "triton")


@lru_cache(maxsize=1)
def has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@cache
def too_old(device: torch.device) -> bool:
    """Returns whether a GPU is older than what the Triton kernels are compiled for; says so once."""
    if torch.version.hip is not None or not torch.cuda.is_available():
        return False
    capability = torch.cuda.get_device_capability(device)
    if capability < OLDEST:
        warnings.warn(
            f"csm_kernels: {device} has compute capability {capability[0]}.{capability[1]}, the Triton "
            f"kernels need {OLDEST[0]}.{OLDEST[1]}; plain torch runs in their place, several times slower.",
            stacklevel=2,
        )
    return capability < OLDEST


def choose(impl: str, device: torch.device, dtype: torch.dtype, *, triton_fits: bool = True) -> str:
    """Returns the implementation that runs for tensors of a device and dtype.

    "auto" is Triton on CUDA and the compiled kernel on CPU. Plain torch ("blocked") replaces either where it
    is not installed or the GPU is older than `OLDEST`, and computes float64. `triton_fits` is False for
    shapes that the operation's Triton kernel does not support.

    Raises:
        ValueError: `impl` is unknown or cannot run here; the message says what it needs.
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl: expected one of {', '.join(IMPLEMENTATIONS)}, got {impl!r}")
    if impl in ("reference", "blocked"):
        return impl
    fits = dtype != torch.float64
    compiles = fits and triton_fits and device.type == "cuda" and has_triton()
    able = {
        "cpu": fits and device.type == "cpu" and bool(instruction_sets()),
        "triton": compiles and not too_old(device),
    }
    if impl == "auto":
        return next((name for name, can in able.items() if can), "blocked")
    if not able[impl]:
        needs = {
            "cpu": "CPU tensors and kernels compiled at the installation",
            "triton": "CUDA tensors of a shape it takes, compute capability 8.0, and the package triton",
        }
        raise ValueError(
            f"impl: {impl!r} needs {needs[impl]}, and no float64; got {dtype} on {device}. Use impl='auto'"
        )
    return impl
