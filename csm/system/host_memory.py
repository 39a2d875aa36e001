"""Memory of this process: how much it took, and that freed memory is kept for the next training step."""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

import torch

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> bool:
    """Makes glibc keep what is freed instead of returning it to the system; False where there is no glibc.

    By default glibc maps every large tensor afresh and unmaps it when freed: each step then takes hundreds
    of thousands of page faults. On a virtual machine one fault costs microseconds, and a training step was
    seen to take 6 times as long (docs/LOG.md). The price is a process that stays at its peak size.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return False
    # An int argument: 1 GiB is far above any tensor of a CPU step.
    return all(mallopt(option, 1 << 30) for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD)) and bool(
        mallopt(_M_TOP_PAD, 64 << 20)
    )


class KeptMemory:
    """Gives kept memory back once the process has grown by half and by 1 GB since it first looked.

    Batches of many shapes leave holes in a heap that nothing is returned from (`keep_freed_memory`): a
    training of 3 GB was seen to take 10 after 4,000 steps. Giving everything back at every step would bring
    the page faults back.
    """

    def __init__(self) -> None:
        self._usual = 0

    def look(self) -> bool:
        """Returns whether memory was given back; called every few steps."""
        now = resident_memory()
        if not self._usual:
            self._usual = now
        if now < 1.5 * self._usual or now < self._usual + (1 << 30):
            return False
        return give_back_free_memory()


def give_back_free_memory() -> bool:
    """Returns all free pages of glibc's heap to the system; False where there is no glibc."""
    if sys.platform != "linux":
        return False
    try:
        trim = ctypes.CDLL("libc.so.6").malloc_trim
    except (OSError, AttributeError):
        return False
    return bool(trim(ctypes.c_size_t(0)))


def peak_memory(device: torch.device) -> int:
    """Returns the most bytes that this process has held: on its GPU by torch, or in the host's memory.

    0 where the system does not count (Windows).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes, but bytes on macOS.
    return peak if sys.platform == "darwin" else 1024 * peak


def resident_memory() -> int:
    """Returns the bytes that this process holds in the host's memory now; 0 where there is no /proc."""
    path = Path("/proc/self/statm")
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if path.is_file() else 0
