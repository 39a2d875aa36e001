"""ema_update: the call, its checks, its one all-reduce and its registration with torch.library.

reference.py specifies it.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from csm_kernels.dispatch import choose
from csm_kernels.ema_update import blocked, cpu, message, reference


def ema_update(
    x: Tensor,
    codes: Tensor,
    codebooks: Tensor,
    usage: Tensor,
    vector_sum: Tensor,
    *,
    step: int | Tensor,
    decay: float = 0.99,
    epsilon: float = 1e-5,
    revive_below: float = 0.05,
    num_levels: int | None = None,
    mask: Tensor | None = None,
    levels: Tensor | None = None,
    group: dist.ProcessGroup | None = None,
    impl: str = "auto",
) -> None:
    """Moves the codebooks towards the rows assigned to them; codebooks, usage and vector_sum change in place.

    Call it once per optimizer step, on every rank, outside forward (activation checkpointing would apply it
    twice), with the rows of all micro-batches of the step. Per level q, with r the residual before it
    (recomputed from x, codes and the codebooks as they are at the call) and sums over the rows of all ranks:

        usage      <- decay usage      + (1 - decay) count
        vector_sum <- decay vector_sum + (1 - decay) sum of r
        codebook   <- vector_sum / (usage + epsilon) * (total usage + V epsilon) / total usage

    A code whose usage is below `revive_below` of uniform usage is dead. Up to REVIVALS_PER_STEP dead codes of
    a level become rows of this step (their residual), drawn by a hash of (step, level, row content);
    codebook, vector_sum and usage (twice the threshold) are written together. Fill usage and vector_sum with
    zeros at the start and every code that no row chooses is dead: the first steps seed the codebooks from
    the data.

    Sums are order-free integers (see `message`): the result is bit-identical for any order of rows and any
    number of ranks and threads. One all-reduce of one int64 tensor, whatever the number of levels; where
    torch.distributed is not initialised, none. No host synchronisation. A level that no row reaches is kept.

    Args:
        x: Quantized rows [N, D] of any float dtype. N may differ between ranks, and be 0. Rows with a
            value that is not finite do not count.
        codes: Codes int64 [N, >= num_levels] from rvq_search with these codebooks, in [0, V).
        codebooks: Codebooks fp32 [Q, V, D]; changed in place.
        usage: Mean rows per step of each code, fp32 [Q, V]; changed in place.
        vector_sum: Mean sum of these rows per step, fp32 [Q, V, D]; changed in place.
        step: Number of the optimizer step (int or int64 scalar on x's device), the seed of its revivals.
        decay: Share of the old statistics kept, in [0, 1).
        epsilon: Laplace smoothing of usage.
        revive_below: Share of uniform usage (total / V) below which a code is dead; 0 turns revival off.
        num_levels: Number of levels that are updated, a prefix (quantizer dropout). None: all.
        mask: False on padding rows, which do not count, bool [N]. None: all count.
        levels: Number of levels that each row was coded with, int64 [N]; later ones ignore it. None: all.
        group: Ranks that share the codebooks. None: all.
        impl: Implementation: "auto" (by device), "triton", "cpu", "blocked" or "reference".

    Raises:
        ValueError: A shape, dtype, device or option does not fit; the message names it.
    """
    stack = Assignment(x, codes, codebooks, usage, vector_sum, num_levels, mask, levels)
    ema_update_stacks(
        (stack,),
        step=step,
        decay=decay,
        epsilon=epsilon,
        revive_below=revive_below,
        group=group,
        impl=impl,
    )


class Assignment(NamedTuple):
    """Rows assigned to one stack of residual codebooks, and its state: the arguments of `ema_update`."""

    x: Tensor
    codes: Tensor
    codebooks: Tensor
    usage: Tensor
    vector_sum: Tensor
    num_levels: int | None = None
    mask: Tensor | None = None
    levels: Tensor | None = None


def ema_update_stacks(
    stacks: Sequence[Assignment],
    *,
    step: int | Tensor,
    decay: float = 0.99,
    epsilon: float = 1e-5,
    revive_below: float = 0.05,
    group: dist.ProcessGroup | None = None,
    impl: str = "auto",
) -> None:
    """`ema_update` of several stacks on one device, with one all-reduce for all of them.

    Args:
        stacks: Stacks, such as a tokenizer's semantic and acoustic one; the same on every rank.
        step, decay, epsilon, revive_below, group, impl: Options of all stacks, see `ema_update`.

    Raises:
        ValueError: As of `ema_update`.
    """
    for stack in stacks:
        _check_stack(stack)
    if not 0 <= decay < 1 or epsilon < 0 or not 0 <= revive_below < 0.5:
        raise ValueError(
            "decay in [0, 1), epsilon >= 0 and revive_below in [0, 0.5) expected, "
            f"got {decay}, {epsilon} and {revive_below}"
        )
    together = dist.is_available() and dist.is_initialized()
    ranks, rank = (dist.get_world_size(group), dist.get_rank(group)) if together else (1, 0)
    with torch.no_grad():
        messages = [_message(stack, step, revive_below, ranks, rank, impl) for stack in stacks]
        if together:
            flat = messages[0] if len(messages) == 1 else torch.cat(messages)
            dist.all_reduce(flat, group=group)
            messages = list(flat.split([len(one) for one in messages]))
        for stack, flat in zip(stacks, messages, strict=True):
            count = _count(stack)
            _ema_apply(
                *(flat, stack.codebooks[:count].detach(), stack.usage[:count], stack.vector_sum[:count]),
                *(ranks, _slots(stack, revive_below), decay, epsilon, revive_below, impl),
            )


def _count(stack: Assignment) -> int:
    return stack.codebooks.shape[0] if stack.num_levels is None else stack.num_levels


def _slots(stack: Assignment, revive_below: float) -> int:
    return min(message.REVIVALS_PER_STEP, stack.codebooks.shape[1]) if revive_below > 0 else 0


def _message(
    stack: Assignment, step: int | Tensor, revive_below: float, ranks: int, rank: int, impl: str
) -> Tensor:
    """This rank's message about a stack."""
    x, count = stack.x, _count(stack)
    if x.shape[0] * ranks > message.MAX_ROWS:
        raise ValueError(
            f"x: {x.shape[0]} rows on each of {ranks} ranks exceed {message.MAX_ROWS} rows in a step, "
            "the room of the integer sums; update more often or on a sample of the rows"
        )
    # A fill, not a copy from the host: no synchronisation on CUDA.
    counter = step if isinstance(step, Tensor) else x.new_full((), step, dtype=torch.int64)
    levels = stack.levels
    row_levels = levels if levels is not None else x.new_full(x.shape[:1], count, dtype=torch.int64)
    counted = x.isfinite().all(1)
    if stack.mask is not None:
        counted = counted & stack.mask
    row_levels = torch.where(counted, row_levels, 0)
    rows = torch.where(counted[:, None], x.detach(), 0).float()
    codebooks, slots = stack.codebooks[:count].detach(), _slots(stack, revive_below)
    return _ema_statistics(
        rows, stack.codes[:, :count], codebooks, row_levels, counter, ranks, rank, slots, impl
    )


def _check_stack(stack: Assignment) -> None:
    _check(*stack[:5], stack.mask, stack.levels)
    count, available = _count(stack), min(stack.codebooks.shape[0], stack.codes.shape[1])
    if not 1 <= count <= available:
        raise ValueError(
            f"num_levels: expected 1 to {available} (codebooks and codes have {stack.codebooks.shape[0]} and "
            f"{stack.codes.shape[1]} levels), got {count}"
        )


def _check(
    x: Tensor,
    codes: Tensor,
    codebooks: Tensor,
    usage: Tensor,
    vector_sum: Tensor,
    mask: Tensor | None,
    levels: Tensor | None,
) -> None:
    if x.dim() != 2 or not x.is_floating_point():
        raise ValueError(
            f"x: expected a float tensor [N, D], got {x.dtype} {tuple(x.shape)}; flatten to rows"
        )
    if codebooks.dim() != 3 or min(codebooks.shape) < 1 or codebooks.shape[2] != x.shape[1]:
        raise ValueError(f"codebooks: expected [Q, V, {x.shape[1]}], got {tuple(codebooks.shape)}")
    expected = {
        "codebooks": (codebooks, codebooks.shape, torch.float32),
        "usage": (usage, codebooks.shape[:2], torch.float32),
        "vector_sum": (vector_sum, codebooks.shape, torch.float32),
        "mask": (mask, x.shape[:1], torch.bool),
        "levels": (levels, x.shape[:1], torch.int64),
    }
    for name, (tensor, shape, dtype) in expected.items():
        if tensor is None:
            continue
        if tensor.dtype != dtype:
            hint = (
                "; in less than fp32 the average freezes, keep it an fp32 buffer"
                if dtype.is_floating_point
                else ""
            )
            raise ValueError(f"{name}: expected {dtype}, got {tensor.dtype}{hint}")
        if tensor.shape != shape:
            raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(tensor.shape)}")
        if tensor.device != x.device:
            raise ValueError(f"{name}: on {tensor.device}, x on {x.device}; move them to one device")
    if codes.dim() != 2 or codes.shape[0] != x.shape[0] or codes.dtype != torch.int64:
        raise ValueError(
            f"codes: expected int64 [{x.shape[0]}, levels], got {codes.dtype} {tuple(codes.shape)}"
        )
    if codes.device != x.device:
        raise ValueError(f"codes: on {codes.device}, x on {x.device}; move them to one device")


def _implementation(impl: str, device: torch.device) -> Any:
    chosen = choose(impl, device, torch.float32)
    if chosen == "triton":
        from csm_kernels.ema_update import triton_kernel

        return triton_kernel
    return {"cpu": cpu, "blocked": blocked, "reference": reference}[chosen]


@torch.library.custom_op("csm::ema_statistics", mutates_args=())
def _ema_statistics(
    x: Tensor,
    codes: Tensor,
    codebooks: Tensor,
    row_levels: Tensor,
    step: Tensor,
    ranks: int,
    rank: int,
    slots: int,
    impl: str,
) -> Tensor:
    return _implementation(impl, x.device).statistics(
        x, codes, codebooks, row_levels, step, ranks, rank, slots
    )


@_ema_statistics.register_fake
def _(
    x: Tensor,
    codes: Tensor,
    codebooks: Tensor,
    row_levels: Tensor,
    step: Tensor,
    ranks: int,
    rank: int,
    slots: int,
    impl: str,
) -> Tensor:
    levels, size, width = codebooks.shape
    return x.new_empty(message.message_size(levels, size, width, ranks, slots), dtype=torch.int64)


@torch.library.custom_op("csm::ema_apply", mutates_args=("codebooks", "usage", "vector_sum"))
def _ema_apply(
    flat: Tensor,
    codebooks: Tensor,
    usage: Tensor,
    vector_sum: Tensor,
    ranks: int,
    slots: int,
    decay: float,
    epsilon: float,
    revive_below: float,
    impl: str,
) -> None:
    _implementation(impl, flat.device).apply(
        flat, codebooks, usage, vector_sum, ranks, slots, decay, epsilon, revive_below
    )


@_ema_apply.register_fake
def _(
    flat: Tensor,
    codebooks: Tensor,
    usage: Tensor,
    vector_sum: Tensor,
    ranks: int,
    slots: int,
    decay: float,
    epsilon: float,
    revive_below: float,
    impl: str,
) -> None:
    return None
