"""ema_update in plain torch, without a host synchronisation, bit-equal to the reference.

Fixed-point values of VALUE_BITS bits are added as float64 in blocks of ROWS rows: integers below 2^53 add
without rounding, seven times as fast as torch's scatter of int64.
"""

import torch
from torch import Tensor

from csm_kernels.ema_update import message

ROWS = 1 << (53 - message.VALUE_BITS)


def statistics(
    x: Tensor,
    codes: Tensor,
    codebooks: Tensor,
    row_levels: Tensor,
    step: Tensor,
    ranks: int,
    rank: int,
    slots: int,
) -> Tensor:
    """As reference.statistics."""
    levels, size, width = codebooks.shape
    flat = x.new_zeros(message.message_size(levels, size, width, ranks, slots), dtype=torch.int64)
    counts, sums, priorities, candidates = message.split_message(flat, levels, size, width, ranks, slots)
    priorities[rank] = -1
    scales = torch.ldexp(torch.ones(levels, device=x.device), message.fixed_point_exponents(codebooks))
    limit = float(1 << message.VALUE_BITS)
    fingerprints = message.row_fingerprints(x)
    found = min(slots, x.shape[0])
    block = x.new_empty(size, width, dtype=torch.float64)
    residual = x.clone()
    for level in range(levels):
        active = row_levels > level
        assigned = codes[:, level].contiguous()
        counts[level].index_add_(0, assigned, active.to(torch.int64))
        fixed = (residual * scales[level]).round_().clamp_(-limit, limit).mul_(active[:, None])
        for start in range(0, x.shape[0], ROWS):
            rows = fixed[start : start + ROWS].double()
            block.zero_().index_add_(0, assigned[start : start + ROWS], rows)
            sums[level].add_(block.to(torch.int64))
        if found:
            draws = torch.where(active, message.lottery(fingerprints, step, level), -1)
            best, chosen = draws.topk(found)
            priorities[rank, level, :found] = best
            candidates[rank, level, :found] = message.pack_rows(residual.index_select(0, chosen))
        residual.sub_(codebooks[level].index_select(0, assigned))
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
) -> None:
    """As reference.apply."""
    levels, size, width = codebooks.shape
    counts, sums, priorities, candidates = message.split_message(flat, levels, size, width, ranks, slots)
    exponents = message.fixed_point_exponents(codebooks)
    units = torch.ldexp(torch.ones(levels, dtype=torch.float64, device=flat.device), -exponents)
    for level in range(levels):
        summed = sums[level].double().mul_(units[level]).float()
        use = usage[level] * decay + counts[level].float() * (1 - decay)
        total_vector = vector_sum[level] * decay + summed.mul_(1 - decay)
        revived, rows = use < 0, None
        if slots:
            uniform = message.total(use) / size
            revived, place = _pair(use < revive_below * uniform, priorities[:, level].reshape(-1), slots)
            packed = candidates[:, level].reshape(-1, candidates.shape[-1])
            rows = message.unpack_rows(packed.index_select(0, place), width)
            revived_use = (2 * revive_below * uniform).float()
            use = torch.where(revived, revived_use, use)
            total_vector = torch.where(revived[:, None], rows * revived_use, total_vector)
        total = message.total(use)
        smoothed = (use + epsilon) / (total + size * epsilon) * total
        moved = total_vector / smoothed[:, None]
        if rows is not None:
            moved = torch.where(revived[:, None], rows, moved)
        # A level that no row reached this step (quantizer dropout) keeps its state.
        reached = counts[level].sum() > 0
        usage[level] = torch.where(reached, use, usage[level])
        vector_sum[level] = torch.where(reached, total_vector, vector_sum[level])
        codebooks[level] = torch.where(reached, moved, codebooks[level])


def _pair(dead: Tensor, priorities: Tensor, slots: int) -> tuple[Tensor, Tensor]:
    """Gives the n-th dead code the n-th distinct candidate.

    Args:
        dead: [V] bool.
        priorities: [W * S], draws of all ranks' candidates, -1 where there is none.
        slots: S.

    Returns:
        revived [V] bool, place [V] int64: the candidate of each revived code.
    """
    draws, order = priorities.topk(slots)
    fresh = draws >= 0
    fresh[1:] &= draws[1:] != draws[:-1]  # equal draws are equal rows
    order = order[torch.argsort((~fresh).to(torch.int8), stable=True)]
    turn = dead.cumsum(0) - 1
    revived = dead & (turn < fresh.sum())
    return revived, order[turn.clamp(0, slots - 1)]
