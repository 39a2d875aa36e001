"""The compiled CPU kernels: found, loaded and chosen for this CPU.

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

# Slowest first; the bits are native.cpp's.
INSTRUCTION_SETS = {"base": 0, "avx2": 1, "avx512": 2, "avx512bf16": 4}


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None, said once, where they were not built."""
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
        # torch's own OpenMP runtime serves us where it is GNU's; elsewhere the system's does.
        ctypes.CDLL("libgomp.so.1", mode=ctypes.RTLD_GLOBAL)
        return ctypes.CDLL(found.origin)


@cache
def instruction_sets() -> tuple[str, ...]:
    """Instruction sets that this CPU has, slowest first; none where nothing was compiled."""
    compiled = library()
    if compiled is None:
        return ()
    has = compiled.csm_instruction_sets()
    return tuple(name for name, bit in INSTRUCTION_SETS.items() if not bit or has & bit)


@cache
def kernel(name: str, instruction_set: str | None = None) -> Callable[..., None]:
    """A compiled kernel.

    Args:
        name: What CSM_EXPORT names in cpu.cpp.
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
    """Whether this machine has a compiled kernel of this name."""
    return any(hasattr(library(), f"csm_{name}_{choice}") for choice in instruction_sets())


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    """The address of a contiguous CPU tensor's first element, for a kernel's pointer argument."""
    assert tensor is None or (tensor.is_contiguous() and tensor.device.type == "cpu")
    return ctypes.c_void_p(tensor.data_ptr() if tensor is not None else None)


def integer(value: int) -> ctypes.c_int64:
    """For a kernel's int64_t argument."""
    return ctypes.c_int64(value)


def threads() -> ctypes.c_int64:
    """As many threads as torch would use here."""
    return integer(torch.get_num_threads())
