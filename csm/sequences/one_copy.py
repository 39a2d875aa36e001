"""Moves all tensors of a batch to a device in one copy.

Each copy of a small tensor costs the host as much as a kernel launch, and one from pageable memory waits
for the device. All of a batch lie in one pinned buffer instead, whose copy runs beside the device's work.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

ALIGNMENT = 16  # bytes; kernels read 16 at a time
T = TypeVar("T")


def map_tensors(value: T, function: Callable[[Tensor], Tensor]) -> T:
    """Returns a tensor, tuple, list or dataclass with `function` applied to every tensor inside it."""
    found: Any = value
    if isinstance(value, Tensor):
        found = function(value)
    elif isinstance(value, tuple):
        parts = [map_tensors(part, function) for part in value]
        found = type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    elif isinstance(value, list):
        found = [map_tensors(part, function) for part in value]
    elif is_dataclass(value) and not isinstance(value, type):
        parts_by_name = {f.name: map_tensors(getattr(value, f.name), function) for f in fields(value)}
        found = replace(cast(Any, value), **parts_by_name)
    return cast(T, found)


def moved(value: T, device: torch.device) -> T:
    """Returns the same on a device; from the host to another device in one copy.

    A tensor that occurs twice is one tensor afterwards, too.
    """
    tensors: dict[int, Tensor] = {}
    map_tensors(value, lambda tensor: tensors.setdefault(id(tensor), tensor))
    on_host = all(tensor.device.type == "cpu" for tensor in tensors.values())
    if all(tensor.device == device for tensor in tensors.values()):
        return value
    if device.type == "cpu" or not on_host:
        copies = {key: tensor.to(device) for key, tensor in tensors.items()}
    else:
        copies = dict(zip(tensors, _copied(list(tensors.values()), device), strict=True))
    return map_tensors(value, lambda tensor: copies[id(tensor)])


def _copied(tensors: list[Tensor], device: torch.device) -> list[Tensor]:
    starts, size = [], 0
    for tensor in tensors:
        starts.append(size)
        size += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
    # A pinned block is given to the next batch only after the copy that reads it (torch's host allocator).
    buffer = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
    for tensor, place in zip(tensors, _views(tensors, starts, buffer), strict=True):
        place.copy_(tensor)
    return _views(tensors, starts, buffer.to(device, non_blocking=True))


def _views(tensors: list[Tensor], starts: list[int], buffer: Tensor) -> list[Tensor]:
    return [
        buffer[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
        for tensor, start in zip(tensors, starts, strict=True)
    ]
