"""A function of tensors at fixed addresses, replayed as one CUDA graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Runs before a capture: libraries choose their kernels and workspaces then.
WARM_UP = 2


class Captured:
    """Calls a function on a CPU; on CUDA it captures the function once and replays the graph.

    Args:
        function: Reads and writes tensors whose addresses and shapes never change, and does not wait for the
            device. On CUDA it runs a few times at once.
        device: Device of these tensors.
    """

    def __init__(self, function: Callable[[], Tensor], device: torch.device) -> None:
        self._function = function
        self._graph: torch.cuda.CUDAGraph | None = None
        if device.type == "cuda":
            with torch.cuda.device(device):
                self._capture()

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """Returns the function's tensor: on CUDA the same one at every call, with new values."""
        if self._graph is None:
            return self._function()
        self._graph.replay()
        return self._output

    @torch.no_grad()
    def _capture(self) -> None:
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                self._function()
        torch.cuda.current_stream().wait_stream(beside)
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile.
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._output = self._function()


def upload(values: Tensor, to: Tensor) -> None:
    """Copies values of the host to a tensor at a fixed address, without a wait for its device.

    Args:
        values: Tensor on the CPU.
        to: Tensor of the same shape and dtype.
    """
    # torch's host allocator gives a pinned block to another tensor only after the copy that reads it.
    to.copy_(values.pin_memory() if to.is_cuda else values, non_blocking=True)
