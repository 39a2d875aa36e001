"""Keeping freed host memory, so that a CPU training step does not fault the same pages in again and again."""

from __future__ import annotations

import ctypes
import sys

# From glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3


def keep_freed_memory() -> bool:
    """Tells glibc to keep what is freed instead of returning it to the system; False where there is no glibc.

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
