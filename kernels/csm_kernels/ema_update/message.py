"""The message that ranks sum in the one all-reduce of ema_update: an int64 vector.

Integers add without rounding, so the sum does not depend on the order of rows, threads or ranks. The vector
holds, in this order, with W ranks, Q levels, V codes of width D, S revival candidates:

    counts      [Q, V]              rows assigned to each code
    sums        [Q, V, D]           their residuals in fixed point (see `fixed_point_exponents`)
    priorities  [W, Q, S]           lottery numbers of each rank's best candidate rows, -1 where it has fewer
    candidates  [W, Q, S, ceil(D/2)] the residuals of those rows, two fp32 bit patterns in one integer

A rank writes its own block of the last two and leaves the others zero: the sum gathers them.
"""

from typing import NamedTuple

import torch
from torch import Tensor

REVIVALS_PER_STEP = 64
"""Most dead codes of a level that one step revives: the candidates that a message has room for."""

FRACTION_BITS = 22  # below the largest codebook entry of the level: an fp32 value's own precision
VALUE_BITS = 42  # so entries up to 2^20 times the largest codebook entry are summed as they are
MAX_ROWS = (1 << (63 - VALUE_BITS)) - 1  # no sum of this many values can overflow

# splitmix64's constants (Steele, Lea, Flood 2014), as signed 64-bit numbers.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_MIX = ((30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64)))


class Message(NamedTuple):
    """Parts of a message, as views of one flat int64 tensor."""

    counts: Tensor
    sums: Tensor
    priorities: Tensor
    candidates: Tensor


def message_size(levels: int, size: int, width: int, ranks: int, slots: int) -> int:
    """Returns the length of the flat vector."""
    return levels * (size * (1 + width) + ranks * slots * (1 + -(-width // 2)))


def split_message(flat: Tensor, levels: int, size: int, width: int, ranks: int, slots: int) -> Message:
    """Returns views of the parts of a flat message."""
    packed = -(-width // 2)
    shapes = (levels, size), (levels, size, width), (ranks, levels, slots), (ranks, levels, slots, packed)
    parts, start = [], 0
    for shape in shapes:
        length = torch.Size(shape).numel()
        parts.append(flat[start : start + length].view(shape))
        start += length
    return Message(*parts)


def fixed_point_exponents(codebooks: Tensor) -> Tensor:
    """Returns exponents int32 [Q]: a residual r of level q is summed as round(r * 2^exponent).

    The product is clamped to +-2^VALUE_BITS. Exponents follow from the codebooks, which are the same on every
    rank, so that ranks need not exchange the range of their data.
    """
    low, high = codebooks.flatten(1).aminmax(dim=1)
    _, exponent = torch.frexp(torch.maximum(-low, high))
    return FRACTION_BITS - exponent.clamp(-60, 60)


def total(usage: Tensor) -> Tensor:
    """Returns the sum of fp32 usage [V] as a double, added one after another on the CPU as in cpu.cpp.

    On CUDA, where torch refuses running sums of floats if deterministic algorithms are asked for, it is added
    in another order, the same one at every call.
    """
    numbers = usage.double()
    return numbers.cumsum(0)[-1] if numbers.device.type == "cpu" else numbers.sum()


def _mix(z: Tensor) -> Tensor:
    for shift, factor in _MIX:
        z = (z ^ ((z >> shift) & ((1 << (64 - shift)) - 1))) * factor
    return z ^ ((z >> 31) & ((1 << 33) - 1))


def row_fingerprints(x: Tensor) -> Tensor:
    """Returns hashes int64 [N] of the bits of fp32 rows [N, D], independent of rank and index."""
    keys = _mix(torch.arange(1, x.shape[1] + 1, device=x.device) * _GOLDEN) | 1
    return (x.contiguous().view(torch.int32) * keys).sum(1)


def lottery(fingerprints: Tensor, step: Tensor, level: int) -> Tensor:
    """Returns a random number int64 [N] in [0, 2^62) for every (step, level, row content)."""
    return _mix(fingerprints ^ _mix(step * _GOLDEN + level)) & ((1 << 62) - 1)


def pack_rows(rows: Tensor) -> Tensor:
    """Maps fp32 [S, D] to int64 [S, ceil(D/2)], the bits unchanged."""
    return torch.nn.functional.pad(rows, (0, rows.shape[1] % 2)).contiguous().view(torch.int64)


def unpack_rows(packed: Tensor, width: int) -> Tensor:
    """Inverts pack_rows."""
    return packed.contiguous().view(torch.float32)[..., :width]
