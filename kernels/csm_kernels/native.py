"""Finds, loads and chooses the compiled CPU kernels.

setup.py builds one library from `native.cpp` and every `cpu.cpp`, the latter once for each instruction set.
It is plain C: it neither links torch nor depends on its version. Where there is no library (no compiler at
the installation) the blocked torch code runs.
"""

import ctypes
import importlib.util
import warnings
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

# Slowest first, with their bits in native.cpp.
INSTRUCTION_SETS = {"base": 0, "avx2": 1, "avx512": 2, "avx512bf16": 4}


@cache
def library() -> ctypes.CDLL | None:
    """Returns the compiled kernels, or None with one warning where they were not built."""
    found = importlib.util.find_spec("csm_kernels._native")
    if found is None or found.origin is None:
        warnings.warn(
            "csm_kernels: no compiled CPU kernels; the torch code in their place is several times slower. "
            "Install a C++ compiler and reinstall (pip install --force-reinstall --no-deps).",
            stacklevel=2,
        )
        return None
    try:
        return ctypes.CDLL(found.origin)
    except OSError:
        # torch's own OpenMP runtime is used where it is GNU's, else the system's.
        ctypes.CDLL("libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(found.origin)


@cache
def instruction_sets() -> tuple[str, ...]:
    """Returns the instruction sets of this CPU, slowest first; none where nothing was compiled."""
    compiled = library()
    if compiled is None:
        return ()
    has = compiled.csm_instruction_sets()
    return tuple(name for name, bit in INSTRUCTION_SETS.items() if not bit or has & bit)


@cache
def kernel(name: str, instruction_set: str | None = None) -> Callable[..., None]:
    """Returns a compiled kernel.

    Args:
        name: Name of the CSM_EXPORT in cpu.cpp.
        instruction_set: One of `instruction_sets()`. Default: the fastest that has this kernel.

    Raises:
        ValueError: This CPU lacks the instruction set, or nothing was compiled.
    """
    available = instruction_sets()
    if not available or instruction_set not in (None, *available):
        raise ValueError(
            f"instruction_set: {instruction_set or 'any'} asked for, this machine has {list(available)}; "
            "an empty list means that the compiled kernels are not installed"
        )
    for choice in (instruction_set,) if instruction_set else reversed(available):
        found = getattr(library(), f"csm_{name}_{choice}", None)
        if found is not None:
            found.restype = None
            return found
    raise ValueError(f"{name}: not compiled for {instruction_set or available}")


@cache
def has_compiled(name: str) -> bool:
    """Returns whether this machine has a compiled kernel of this name."""
    return any(hasattr(library(), f"csm_{name}_{choice}") for choice in instruction_sets())


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """Returns the address of a contiguous CPU tensor's first element, for a kernel's pointer argument."""
    assert tensor is None or (tensor.is_contiguous() and tensor.device.type == "cpu")
    return ctypes.c_void_p(tensor.data_ptr() if tensor is not None else None)


def integer(value: int) -> ctypes.c_int64:
    """Converts to a kernel's int64_t argument."""
    return ctypes.c_int64(value)


def threads() -> ctypes.c_int64:
    """Returns the number of threads that torch uses."""
    return integer(torch.get_num_threads())
