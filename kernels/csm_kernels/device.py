"""What a launch needs of the device of its tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

INTERPRETED = 64  # processors, where there is no GPU
# Programs on each axis that CUDA launches (CUDA C++ programming guide, technical specifications).
LARGEST_GRID = (2**31 - 1, 65_535, 65_535)
Rest = ParamSpec("Rest")
Result = TypeVar("Result")


def processors(device: torch.device) -> int:
    """Returns the number of streaming multiprocessors (AMD: compute units) of a GPU."""
    if device.type != "cuda":
        return INTERPRETED
    return int(torch.cuda.get_device_properties(device).multi_processor_count)


def grid(*programs: int) -> tuple[int, ...]:
    """Returns the grid of a launch with these numbers of programs.

    Raises:
        ValueError: There are more on an axis than CUDA launches.
    """
    for axis, (count, most) in enumerate(zip(programs, LARGEST_GRID, strict=False)):
        if count > most:
            raise ValueError(
                f"a kernel needs {count} programs on axis {axis} of its grid: expected at most {most}, which "
                f"is all that CUDA launches; split the tensors"
            )
    return programs


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
