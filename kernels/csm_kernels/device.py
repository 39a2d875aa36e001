"""What a launch needs of the device of its tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

INTERPRETED = 64  # processors, where there is no GPU
Rest = ParamSpec("Rest")
Result = TypeVar("Result")


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


def launches(
    function: Callable[Concatenate[Tensor, Rest], Result],
) -> Callable[Concatenate[Tensor, Rest], Result]:
    """Decorates a function that launches kernels: they run on the device of its first tensor."""

    @functools.wraps(function)
    def launched(first: Tensor, /, *rest: Rest.args, **options: Rest.kwargs) -> Result:
        with on_device(first):
            return function(first, *rest, **options)

    return launched
