"""ema_update by the compiled kernels of cpu.cpp, bit-equal to the reference."""

import ctypes

import torch
from torch import Tensor

from csm_kernels.ema_update import message
from csm_kernels.native import integer, kernel, pointer, threads


def statistics(
    x: Tensor,
    codes: Tensor,
    codebooks: Tensor,
    row_levels: Tensor,
    step: Tensor,
    ranks: int,
    rank: int,
    slots: int,
    instruction_set: str | None = None,
) -> Tensor:
    """As reference.statistics; instruction_set as in `native.kernel`."""
    (levels, size, width), rows = codebooks.shape, x.shape[0]
    flat = torch.zeros(message.message_size(levels, size, width, ranks, slots), dtype=torch.int64)
    counts, sums, priorities, candidates = message.split_message(flat, levels, size, width, ranks, slots)
    priorities[rank] = -1
    kept = codes.contiguous(), codebooks.contiguous(), row_levels.contiguous()
    used_up = x.clone(memory_format=torch.contiguous_format), torch.empty(rows, dtype=torch.int64)
    winners = torch.empty(levels, slots, dtype=torch.int64)
    kernel("ema_statistics", instruction_set)(
        *map(pointer, kept),
        *map(integer, (int(step), rows, size, width, levels, slots)),
        threads(),
        *map(pointer, (*used_up, winners, counts, sums, priorities[rank], candidates[rank])),
    )
    return flat


def apply(
    flat: Tensor,
    codebooks: Tensor,
    usage: Tensor,
    vector_sum: Tensor,
    ranks: int,
    slots: int,
    decay: float,
    epsilon: float,
    revive_below: float,
    instruction_set: str | None = None,
) -> None:
    """As reference.apply; instruction_set as in `native.kernel`."""
    levels, size, width = codebooks.shape
    parts = message.split_message(flat, levels, size, width, ranks, slots)
    state = codebooks, usage, vector_sum
    changed = [t if t.is_contiguous() else t.contiguous() for t in state]
    kernel("ema_apply", instruction_set)(
        *map(pointer, parts),
        *map(integer, (ranks, slots, size, width, levels)),
        *map(ctypes.c_double, (decay, epsilon, revive_below)),
        threads(),
        *map(pointer, changed),
    )
    for tensor, result in zip(state, changed, strict=True):
        if result is not tensor:
            tensor.copy_(result)
