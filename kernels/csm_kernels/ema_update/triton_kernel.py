"""ema_update on a GPU: a handful of launches for all levels, the message bit for bit the specification's.

Sums are int64 fixed point (see `message`), added by integer atomics: integers add without rounding, so the
result does not depend on who comes first. The update itself writes every product, sum and quotient as the
specification does, IEEE fp32 without fused operations; totals of usage are summed in double, in blocks of
BLOCK codes one after another. torch sums in another order: where a total is not exact in 53 bits the last bit
of its double may differ, and where that moves its rounding to fp32, the last bit of a level.

Nothing is read on the host and no loop over levels runs in Python: statistics are four kernels of ours, two
fills and a torch.topk, apply three kernels, one fill and a torch.topk, whatever the number of levels. Widths,
strides and pointers are not specialised: one compiled form of each kernel serves every call.
"""

from __future__ import annotations

import struct

import torch
import triton
import triton.language as tl
from torch import Tensor

from csm_kernels.device import grid, launches
from csm_kernels.ema_update import message
from csm_kernels.shipped import FP_FUSION, Shipped

ROWS, COLUMNS = 16, 64  # of one elementwise program
SLOTS = triton.next_power_of_2(message.REVIVALS_PER_STEP)
BLOCK = 1024  # of one step through a level's codes or elements
WARPS, STAGES = 4, 1

_VALUE_LIMIT: tl.constexpr = tl.constexpr(float(1 << message.VALUE_BITS))
_FRACTION_BITS: tl.constexpr = tl.constexpr(message.FRACTION_BITS)
_WHOLE: tl.constexpr = tl.constexpr(float(1 << 23))  # no fp32 number from here on has a fraction


def _jit(function):  # a dimension of 1 or a multiple of 16 is no reason to compile again
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    return triton.jit(do_not_specialize=[name for name in names if name.islower()])(function)


@_jit
def _largest(codebooks, largest, elements, BLOCK: tl.constexpr):
    """Bits of the largest |entry| of each level: of numbers >= 0 bits compare as integers."""
    level = tl.program_id(1)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)  # axis 1 ends at 65,535 programs
    entries = tl.load(codebooks + level.to(tl.int64) * elements + place, place < elements, other=0.0)
    tl.atomic_max(largest + level, tl.max(tl.abs(entries).to(tl.int32, bitcast=True), axis=0), sem="relaxed")


@triton.jit
def _fixed_point_exponent(largest):
    """message.fixed_point_exponents from the bits of the largest |entry|."""
    exponent = tl.minimum(tl.maximum((largest >> 23) - 126, -60), 60)
    return _FRACTION_BITS - tl.where(largest == 0, 0, exponent)


@triton.jit
def _mix(z):
    """splitmix64's, z uint64."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB
    return z ^ (z >> 31)


@triton.jit
def _whole(value):
    """The nearest whole number, of two the even one, as torch.round."""
    size = tl.abs(value)
    size = tl.where(size < _WHOLE, (size + _WHOLE) - _WHOLE, size)
    return tl.where(value < 0, -size, size)


@_jit
def _accumulate(
    x, codes, codebooks, row_levels, largest, counts, sums, rows, levels, size, width, code_stride,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """counts and sums of ROWS rows and COLUMNS columns at all levels: each column's residual is its own."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    d = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    inside = row < rows
    kept = inside[:, None] & (d < width)
    residual = tl.load(x + row[:, None] * width + d, kept, other=0.0)
    reached = tl.load(row_levels + row, inside, other=0)
    for level in range(levels):
        code = tl.load(codes + row * code_stride + level, inside, other=0)
        active = inside & (reached > level)
        exponent = _fixed_point_exponent(tl.load(largest + level))
        scale = ((exponent + 127) << 23).to(tl.float32, bitcast=True)
        fixed = tl.minimum(tl.maximum(_whole(residual * scale), -_VALUE_LIMIT), _VALUE_LIMIT)
        place = code[:, None] * width + d
        tl.atomic_add(sums + place, fixed.to(tl.int64), active[:, None] & (d < width), sem="relaxed")
        tl.atomic_add(
            counts + code, tl.full([ROWS], 1, tl.int64), active & (tl.program_id(1) == 0), sem="relaxed"
        )
        residual -= tl.load(codebooks + place, kept, other=0.0)
        counts += size
        sums += size.to(tl.int64) * width
        codebooks += size.to(tl.int64) * width


@_jit
def _draw(x, row_levels, step, draws, rows, levels, width, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """draws [Q, N]: message.lottery of message.row_fingerprints, -1 where a level does not count a row."""
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    inside = row < rows
    fingerprints = tl.zeros([ROWS], tl.uint64)
    for start in range(0, width, COLUMNS):
        d = start + tl.arange(0, COLUMNS)
        keys = _mix((d + 1).to(tl.uint64) * 0x9E3779B97F4A7C15) | 1
        kept = inside[:, None] & (d < width)[None, :]
        entries = tl.load(x + row[:, None] * width + d[None, :], kept, other=0.0)
        bits = entries.to(tl.int32, bitcast=True).to(tl.int64).to(tl.uint64, bitcast=True)
        fingerprints += tl.sum(bits * keys[None, :], axis=1)
    reached = tl.load(row_levels + row, inside, other=0)
    seed = tl.load(step).to(tl.uint64, bitcast=True) * 0x9E3779B97F4A7C15
    for level in range(levels):
        draw = _mix(fingerprints ^ _mix(seed + level)) & ((1 << 62) - 1)
        tl.store(draws + row, tl.where(reached > level, draw.to(tl.int64, bitcast=True), -1), inside)
        draws += rows


@_jit
def _write_candidates(
    x, codes, codebooks, best, chosen, priorities, candidates, size, width, code_stride, found, slots, stride,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """This rank's priorities, and the residuals of the chosen rows as fp32 rows of `stride`."""
    level = tl.program_id(0)
    slot = tl.program_id(1) * ROWS + tl.arange(0, ROWS)
    d = (tl.program_id(2) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    filled = slot < found
    row = tl.load(chosen + level * found + slot, filled, other=0)
    kept = filled[:, None] & (d < width)
    residual = tl.load(x + row[:, None] * width + d, kept, other=0.0)
    for before in range(level):
        code = tl.load(codes + row * code_stride + before, filled, other=0)
        residual -= tl.load(codebooks + code[:, None] * width + d, kept, other=0.0)
        codebooks += size.to(tl.int64) * width
    place = (level * slots + slot).to(tl.int64)
    tl.store(candidates + place[:, None] * stride + d, residual, kept)
    priority = tl.load(best + level * found + slot, filled, other=-1)
    tl.store(priorities + place, priority, (slot < slots) & (tl.program_id(2) == 0))


@triton.jit
def _double(bits):
    return bits.to(tl.int64).to(tl.float64, bitcast=True)


@triton.jit
def _moved_usage(counts, usage, place, inside, decay, rest):
    count = tl.load(counts + place, inside, other=0)
    return count, tl.load(usage + place, inside, other=0.0) * decay + count.to(tl.float32) * rest


@triton.jit
def _queue(draws, order, turns, slots, SLOTS: tl.constexpr):
    """Writes the distinct candidates of a level to turns, best first, and gives their number."""
    slot = tl.arange(0, SLOTS)
    draw = tl.load(draws + slot, slot < slots, other=-1)
    one_better = tl.load(draws + slot - 1, (slot > 0) & (slot < slots), other=-1)
    fresh = (draw >= 0) & (draw != one_better)  # equal draws are equal rows
    turn = tl.cumsum(fresh.to(tl.int32), axis=0) - 1
    tl.store(turns + turn, tl.load(order + slot, fresh, other=0), fresh)
    return tl.sum(fresh.to(tl.int32), axis=0)


@_jit
def _move_usage(
    counts, usage, draws, order, turns, places, divisors, size, slots, decay, rest, epsilon,
    spread_bits: tl.int64, revive_bits: tl.int64,
    BLOCK: tl.constexpr, SLOTS: tl.constexpr,
):  # fmt: skip
    """One level's usage, and for each code what `_move_vectors` needs.

    draws and order [Q, slots] are the candidates, best first; turns [Q, slots] is room. Writes places [Q, V]
    int32 (the candidate that a code becomes, -1 none, -2 keep the whole level) and divisors [Q, V] (smoothed
    usage). spread_bits and revive_bits are the doubles V * epsilon and revive_below: triton passes doubles on
    as fp32.
    """
    level = tl.program_id(0).to(tl.int64)
    counts += level * size
    usage += level * size
    total = tl.full([], 0.0, tl.float64)
    rows = tl.full([], 0, tl.int64)
    for start in range(0, size, BLOCK):
        place = start + tl.arange(0, BLOCK)
        count, use = _moved_usage(counts, usage, place, place < size, decay, rest)
        rows += tl.sum(count, axis=0)
        total += tl.sum(use.to(tl.float64), axis=0)
    reached = rows > 0
    uniform = total / size.to(tl.float64)
    threshold = (_double(revive_bits) * uniform).to(tl.float32)
    revived_use = (2.0 * _double(revive_bits) * uniform).to(tl.float32)

    available = _queue(draws + level * slots, order + level * slots, turns + level * slots, slots, SLOTS)
    tl.debug_barrier()  # turns are read by other threads than wrote them

    total = tl.full([], 0.0, tl.float64)
    dead_before = tl.full([], 0, tl.int32)
    for start in range(0, size, BLOCK):
        place = start + tl.arange(0, BLOCK)
        inside = place < size
        _, use = _moved_usage(counts, usage, place, inside, decay, rest)
        dead = inside & (use < threshold)
        turn = dead_before + tl.cumsum(dead.to(tl.int32), axis=0) - 1
        revived = dead & (turn < available)
        dead_before += tl.sum(dead.to(tl.int32), axis=0)
        use = tl.where(revived, revived_use, use)
        total += tl.sum(use.to(tl.float64), axis=0)
        tl.store(usage + place, use, inside & reached)
        candidate = tl.load(turns + level * slots + turn, revived, other=-1).to(tl.int32)
        tl.store(places + level * size + place, tl.where(reached, candidate, -2), inside)
    tl.debug_barrier()  # usage is read by other threads than wrote it
    spread = (total + _double(spread_bits)).to(tl.float32)
    for start in range(0, size, BLOCK):
        place = start + tl.arange(0, BLOCK)
        use = tl.load(usage + place, place < size, other=0.0)
        divisor = tl.div_rn(use + epsilon, tl.zeros_like(use) + spread) * total.to(tl.float32)
        tl.store(divisors + level * size + place, divisor, place < size)


@_jit
def _move_vectors(
    sums, codebooks, vector_sum, usage, candidates, places, divisors, largest,
    levels, size, width, slots, stride, decay, rest,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """vector_sum and codebooks of ROWS codes and COLUMNS columns of a level."""
    level = tl.program_id(2)
    code = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    d = (tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS))[None, :]
    known = code < size
    code = level.to(tl.int64) * size + code
    candidate = tl.load(places + code, known, other=-2)
    kept = (known & (candidate != -2))[:, None] & (d < width)
    revived = candidate[:, None] >= 0
    place = code[:, None] * width + d

    exponent = _fixed_point_exponent(tl.load(largest + level))
    unit = ((1023 - exponent).to(tl.int64) << 52).to(tl.float64, bitcast=True)
    summed = (tl.load(sums + place, kept, other=0).to(tl.float64) * unit).to(tl.float32)
    vector = tl.load(vector_sum + place, kept, other=0.0) * decay + summed * rest
    divisor = tl.load(divisors + code, known, other=1.0)
    moved = tl.div_rn(vector, tl.zeros_like(vector) + divisor[:, None])

    rank, slot = candidate // slots, candidate % slots
    source = ((rank * levels + level) * slots + slot).to(tl.int64)[:, None] * stride + d
    row = tl.load(candidates + source, kept & revived, other=0.0)
    use = tl.load(usage + code, known, other=0.0)[:, None]
    tl.store(vector_sum + place, tl.where(revived, row * use, vector), kept)
    tl.store(codebooks + place, tl.where(revived, row, moved), kept)


def _largest_bits(codebooks: Tensor) -> Tensor:
    """[Q] int32, see `_largest`; codebooks are contiguous."""
    levels, elements = codebooks.shape[0], codebooks[0].numel()
    if elements >= 1 << 31:
        raise ValueError(
            f"codebooks have {elements} entries a level: expected below 2^31, whose places are 32-bit numbers"
        )
    largest = torch.zeros(levels, dtype=torch.int32, device=codebooks.device)
    _largest[grid(triton.cdiv(elements, BLOCK), levels)](
        codebooks, largest, elements, BLOCK=BLOCK, **_OPTIONS
    )
    return largest


@launches
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
    """This rank's message, see `message` and `ema_update`.

    Args:
        x: [N, D] fp32.
        codes: [N, Q] int64, each row contiguous.
        codebooks: [Q, V, D] fp32 as they were when the codes were chosen.
        row_levels: [N] int64, how many levels count this row.
        step: int64 scalar.
        ranks: Size of the group.
        rank: Place of this rank in it.
        slots: Revival candidates per level.
    """
    levels, size, width = codebooks.shape
    rows = x.shape[0]
    x, codebooks, row_levels = x.contiguous(), codebooks.contiguous(), row_levels.contiguous()
    codes = codes if codes.stride(1) == 1 else codes.contiguous()
    flat = x.new_zeros(message.message_size(levels, size, width, ranks, slots), dtype=torch.int64)
    counts, sums, priorities, candidates = message.split_message(flat, levels, size, width, ranks, slots)
    if rows:
        largest = _largest_bits(codebooks)
        _accumulate[grid(triton.cdiv(rows, ROWS), triton.cdiv(width, COLUMNS))](
            x, codes, codebooks, row_levels, largest, counts, sums,
            rows, levels, size, width, codes.stride(0), **_ELEMENTWISE, **_OPTIONS,
        )  # fmt: skip
    if not slots:
        return flat
    draws = torch.empty(levels, rows, dtype=torch.int64, device=x.device)
    if rows:
        _draw[grid(triton.cdiv(rows, ROWS))](
            x, row_levels, step, draws, rows, levels, width, **_ELEMENTWISE, **_OPTIONS
        )
    best, chosen = draws.topk(min(slots, rows), dim=1)
    stride = 2 * candidates.shape[-1]
    _write_candidates[grid(levels, triton.cdiv(slots, ROWS), triton.cdiv(width, COLUMNS))](
        x, codes, codebooks, best, chosen, priorities[rank], candidates[rank].view(torch.float32),
        size, width, codes.stride(0), best.shape[1], slots, stride, **_ELEMENTWISE, **_OPTIONS,
    )  # fmt: skip
    return flat


@launches
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
    assert codebooks.is_contiguous() and usage.is_contiguous() and vector_sum.is_contiguous()
    counts, sums, priorities, candidates = message.split_message(flat, levels, size, width, ranks, slots)
    largest = _largest_bits(codebooks)
    draws, order = priorities.transpose(0, 1).reshape(levels, -1).topk(slots, dim=1)
    places = torch.empty(levels, size, dtype=torch.int32, device=flat.device)
    divisors = torch.empty_like(usage)
    moving = decay, 1 - decay
    _move_usage[grid(levels)](
        counts, usage, draws, order, torch.empty_like(order), places, divisors, size, slots, *moving, epsilon,
        _bits(size * epsilon), _bits(revive_below), BLOCK=BLOCK, SLOTS=SLOTS, **_OPTIONS,
    )  # fmt: skip
    _move_vectors[grid(triton.cdiv(size, ROWS), triton.cdiv(width, COLUMNS), levels)](
        sums, codebooks, vector_sum, usage, candidates.view(torch.float32), places, divisors, largest,
        levels, size, width, max(slots, 1), 2 * candidates.shape[-1], *moving, **_ELEMENTWISE, **_OPTIONS,
    )  # fmt: skip


def _bits(value: float) -> int:
    """The bits of a double."""
    return struct.unpack("<q", struct.pack("<d", value))[0]


_ELEMENTWISE = {"ROWS": ROWS, "COLUMNS": COLUMNS}
_OPTIONS = {"num_warps": WARPS, "num_stages": STAGES, "enable_fp_fusion": FP_FUSION}
_TYPES = {
    **dict.fromkeys(("x", "codebooks", "usage", "vector_sum", "candidates", "divisors"), "*fp32"),
    **dict.fromkeys(("codes", "row_levels", "step", "counts", "sums", "draws", "best", "chosen"), "*i64"),
    **dict.fromkeys(("priorities", "order", "turns"), "*i64"),
    **dict.fromkeys(("largest", "places"), "*i32"),
    **dict.fromkeys(("decay", "rest", "epsilon"), "fp32"),
    **dict.fromkeys(("spread_bits", "revive_bits"), "i64"),
}


def _shipped(kernel: triton.JITFunction, constexprs: dict[str, int]) -> Shipped:
    names = [name for name in kernel.arg_names if name not in constexprs]
    return Shipped(
        name=f"ema_update/{kernel.__name__.removeprefix('_')}",
        kernel=kernel,
        signature={name: _TYPES.get(name, "i32") for name in names},
        constexprs=constexprs,
        num_warps=WARPS,
        num_stages=STAGES,
    )


SHIPPED = (
    _shipped(_largest, {"BLOCK": BLOCK}),
    *(_shipped(kernel, _ELEMENTWISE) for kernel in (_accumulate, _draw, _write_candidates, _move_vectors)),
    _shipped(_move_usage, {"BLOCK": BLOCK, "SLOTS": SLOTS}),
)
