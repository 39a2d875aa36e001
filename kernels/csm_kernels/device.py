"""What a launch needs to know of the device of its tensors."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

INTERPRETED = 64  # processors, where there is no GPU


def processors(device: torch.device) -> int:
    """Returns the number of streaming multiprocessors (AMD: compute units) of a GPU."""
    if device.type != "cuda":
        return INTERPRETED
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def on_device(x: Tensor) -> AbstractContextManager[object]:
    """Makes the device of `x` current: Triton launches on the current device and stream.

    Tensors on the CPU, which Triton's interpreter takes, need nothing.
    """
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
