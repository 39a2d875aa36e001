"""What a training step asks of the host: calls of torch's operators, waits for the device, blocking copies.

Counted on the CPU. An operator waits for a device if the size or the content of its result reaches the host;
there is no device here, so that every such call counts whose input is a tensor.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# The size of the result depends on the values of the input, or the result is a number of Python's.
WAITING = {
    "aten::nonzero",
    "aten::_local_scalar_dense",
    "aten::bincount",
    "aten::masked_select",
    "aten::unique_dim",
    "aten::_unique2",
    "aten::equal",
    "aten::is_nonzero",
}


@dataclass
class HostWork:
    """Counts of one stretch of a program.

    Attributes:
        calls: Operators by name.
        waits: Operators that wait for the device, by name and place.
        copies: Copies of a tensor of the host to the device that block, by place.
    """

    calls: Counter[str] = field(default_factory=Counter)
    waits: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)


def _place() -> str:
    """The innermost frame of `csm` or `csm_kernels`."""
    for frame in reversed(traceback.extract_stack()):
        if "/csm/" in frame.filename or "/csm_kernels/" in frame.filename:
            return f"{frame.filename.rpartition('/csm')[2].strip('/')}:{frame.lineno}"
    return "elsewhere"


def _waits(function: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> bool:
    name = function._schema.name
    if name in WAITING:
        return True
    if name == "aten::repeat_interleave":
        return options.get("output_size") is None and function._schema.overload_name != "self_int"
    if name.startswith(("aten::index", "aten::_index_put")) and len(arguments) > 1:
        indices = arguments[1] if isinstance(arguments[1], (list, tuple)) else ()
        return any(
            isinstance(index, Tensor) and index.dtype in (torch.bool, torch.uint8) for index in indices
        )
    return False


class _Counting(TorchDispatchMode):
    def __init__(self, found: HostWork) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = kwargs or {}
        overload = function._schema.overload_name
        self.found.calls[function._schema.name + (f".{overload}" if overload else "")] += 1
        if _waits(function, args, options):
            self.found.waits[f"{function._schema.name} {_place()}"] += 1
        return function(*args, **options)


@contextmanager
def counted() -> Iterator[HostWork]:
    """Counts what runs inside, on this thread and in the backward passes that it starts."""
    found = HostWork()
    to, tolist = Tensor.to, Tensor.tolist

    def moved(self: Tensor, *arguments: Any, **options: Any) -> Tensor:
        to_device = options.get("device") or (arguments and isinstance(arguments[0], torch.device))
        if to_device and not (options.get("non_blocking") and self.is_pinned()):
            found.copies[_place()] += 1
        return to(self, *arguments, **options)

    def listed(self: Tensor) -> Any:
        # The kernels check bounds of sequences by their values on the CPU alone.
        if "_kernels/" not in (place := _place()):
            found.waits[f"tolist {place}"] += 1
        return tolist(self)

    patches = mock.patch.multiple(Tensor, to=moved, tolist=listed)
    with patches, _Counting(found):
        yield found
