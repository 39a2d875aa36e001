"""The specification of ema_update in plain PyTorch, one level at a time.

Codebooks follow the exponential moving average of the rows assigned to them, once per optimizer step: every
rank counts and sums its rows in a message, one all-reduce adds the messages, and `apply` moves codes and
revives dead ones. The kernels give the same bits.
"""

import torch
from torch import Tensor

from csm_kernels.ema_update import message


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
    """This rank's message; see `message` for its parts.

    Args:
        x: [N, D] fp32.
        codes: [N, Q].
        codebooks: [Q, V, D] as they were when the codes were chosen.
        row_levels: [N] int64, how many levels count this row.
        step: int64 scalar.
        ranks: Size of the group.
        rank: Place of this rank in it.
        slots: Revival candidates per level.
    """
    levels, size, width = codebooks.shape
    flat = x.new_zeros(message.message_size(levels, size, width, ranks, slots), dtype=torch.int64)
    counts, sums, priorities, candidates = message.split_message(flat, levels, size, width, ranks, slots)
    priorities[rank] = -1
    fingerprints = message.row_fingerprints(x)
    scales = torch.ldexp(torch.ones(levels, device=x.device), message.fixed_point_exponents(codebooks))
    limit = float(1 << message.VALUE_BITS)
    residual = x
    for level in range(levels):
        active = row_levels > level
        fixed = (residual * scales[level]).round().clamp(-limit, limit).to(torch.int64)
        counts[level].index_add_(0, codes[:, level], active.to(torch.int64))
        sums[level].index_add_(0, codes[:, level], fixed * active[:, None])
        draws = torch.where(active, message.lottery(fingerprints, step, level), -1)
        best, rows = draws.topk(min(slots, x.shape[0]))
        priorities[rank, level, : rows.shape[0]] = best
        candidates[rank, level, : rows.shape[0]] = message.pack_rows(residual[rows])
        residual = residual - codebooks[level][codes[:, level]]
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
    """Moves codebooks [Q, V, D], usage [Q, V] and vector_sum [Q, V, D] in place by the summed message."""
    levels, size, width = codebooks.shape
    counts, sums, priorities, candidates = message.split_message(flat, levels, size, width, ranks, slots)
    exponents = message.fixed_point_exponents(codebooks)
    for level in range(levels):
        summed = torch.ldexp(sums[level].double(), -exponents[level]).float()
        use = usage[level] * decay + counts[level].float() * (1 - decay)
        total_vector = vector_sum[level] * decay + summed * (1 - decay)
        uniform = message.total(use) / size

        # Distinct candidate rows, best draw first; equal draws are equal rows.
        draws, order = priorities[:, level].reshape(-1).topk(slots)
        rows = message.unpack_rows(candidates[:, level].reshape(-1, candidates.shape[-1])[order], width)
        fresh = draws >= 0
        fresh[1:] &= draws[1:] != draws[:-1]
        rows = rows[fresh]
        dead = (use < revive_below * uniform).nonzero().squeeze(1)[: rows.shape[0]]
        rows = rows[: dead.shape[0]]

        # The three go together: a codebook entry alone would be overwritten by the untouched statistics.
        revived_use = (2 * revive_below * uniform).float()
        use[dead] = revived_use
        total_vector[dead] = rows * revived_use
        total = message.total(use)
        smoothed = (use + epsilon) / (total + size * epsilon) * total
        moved = (total_vector / smoothed[:, None]).float()
        moved[dead] = rows
        if counts[level].sum() > 0:
            usage[level], vector_sum[level], codebooks[level] = use, total_vector, moved
