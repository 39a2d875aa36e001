"""Times of calls: CUDA events and graph replay with a flushed L2 on a device, the wall clock elsewhere."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

FLUSH_BYTES = 256 * 2**20  # more than the L2 of any card
SECONDS = 0.25  # of repetitions of one call
LEAST, MOST = 5, 40


class Stopwatch:
    """Medians of repeated calls on one device, in milliseconds."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.cuda = device, device.type == "cuda"
        size = FLUSH_BYTES // 4 if self.cuda else 1
        self.flush = torch.zeros(size, dtype=torch.int32, device=device)

    def eager(self, call: Callable[[], object]) -> float:
        """Returns the time of a call with its launches."""
        call()  # compiles
        return self._median(call)

    def replayed(self, call: Callable[[], object]) -> float | None:
        """Returns the time of a captured call: its kernels alone. None where it cannot be captured."""
        if not self.cuda:
            return None
        graph = torch.cuda.CUDAGraph()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        try:
            with torch.cuda.stream(side):
                for _ in range(2):
                    call()
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(graph):
                call()
        except RuntimeError as error:
            torch.cuda.synchronize()
            print(f"not captured: {str(error).splitlines()[0]}")
            return None
        return self._median(graph.replay)

    def _median(self, call: Callable[[], object]) -> float:
        first = self._once(call)
        count = max(LEAST, min(MOST, int(1e3 * SECONDS / max(first, 1e-3)))) if self.cuda else 3
        return statistics.median(self._once(call) for _ in range(count))

    def _once(self, call: Callable[[], object]) -> float:
        if not self.cuda:
            start = time.perf_counter()
            call()
            return 1e3 * (time.perf_counter() - start)
        self.flush.zero_()
        before, after = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        before.record()
        call()
        after.record()
        after.synchronize()
        return before.elapsed_time(after)
