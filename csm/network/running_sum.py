"""Sums of all entries up to each one, with the same bits at every call on every device."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def running_sum(x: Float[Tensor, "*N"], dim: int) -> Float[Tensor, "*N"]:
    """Returns the sums of the entries up to each one along a dimension, in the dtype of `x`.

    On a CPU it is torch's `cumsum`. On CUDA that adds floats in an order of its own, and torch refuses it
    where deterministic algorithms are asked for; there it is `doubling_sum`.
    """
    return x.cumsum(dim) if x.device.type == "cpu" else doubling_sum(x, dim)


def doubling_sum(x: Float[Tensor, "*N"], dim: int) -> Float[Tensor, "*N"]:
    """Returns running sums by ceil(log2(n)) additions of shifted copies, in fp32 or more.

    Each sum adds up in a tree of that depth, the same one at every call (Hillis & Steele 1986).
    """
    sums = x.to(torch.promote_types(x.dtype, torch.float32)).movedim(dim, 0)
    reach = 1
    while reach < len(sums):
        moved = torch.cat([torch.zeros_like(sums[:reach]), sums[:-reach]])
        sums, reach = sums + moved, 2 * reach
    return sums.movedim(0, dim).to(x.dtype)
