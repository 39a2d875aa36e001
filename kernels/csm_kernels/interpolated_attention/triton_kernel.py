"""interpolated_attention on a GPU: nothing of the resampled length is ever formed.

Between two neighbouring keys the resampled logits are linear in position, so their exponentials form a
geometric sequence: a program meets a *run* of positions between a left and a right key as one column, with
the sums of p and p w (backward also p w^2) over its positions, where w is the right key's share. Runs are
counted in integers:

    L > Tk   run s in [0, Tk] lies between keys s - 1 and s; the first and the last, beyond the outermost
             keys' centres, are constant: share 1 of key 0, share 0 of key Tk - 1
    L <= Tk  every position is a run of its own: the two-tap gather

A run's exponentials are taken at its larger end, where no term can vanish that matters. Of a run, queries see
the part in their window. Gradients of a key come from the run on its left and the run on its right; a program
of the key kernel owns RUNS - 1 runs and computes the one before them again, so no two programs write one key.
Sums are fp32. Weights and their gradients meet half-precision keys as two bf16 numbers (16 bits of mantissa).
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from csm_kernels.device import grid, launches
from csm_kernels.interpolated_attention.tiles import (
    ALIGN,
    DTYPES,
    TABLE,
    TABLE_OPTIONS,
    WIDTHS,
    constants_of,
    options_of,
    shipped,
)

TERMS: tl.constexpr = tl.constexpr(16)  # longest run that is summed term by term; beyond, doubling is cheaper
LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def _sequence(bounds, sequences, program, BLOCK: tl.constexpr):
    """A program's sequence, and which block of it: sequence b owns those from bounds[b] // BLOCK + b on."""
    low, high = 0, sequences
    while high - low > 1:
        middle = (low + high) // 2
        reached = tl.load(bounds + middle) // BLOCK + middle <= program
        low = tl.where(reached, middle, low)
        high = tl.where(reached, high, middle)
    start = tl.load(bounds + low)
    return low, start, tl.load(bounds + low + 1) - start, program - start // BLOCK - low


@triton.jit
def _count_runs(keys, length):
    """Number of runs of a sequence, and the most positions in one."""
    runs = tl.where(length <= keys, length, keys + 1)
    longest = tl.where(length <= keys, 1, (length + keys - 1) // tl.maximum(keys, 1))
    return tl.where(keys == 0, 0, runs).to(tl.int32), longest


@triton.jit
def _run_at(position, keys, length):
    """The run of a position in [0, length)."""
    between = ((2 * position + 1) * keys + length) // (2 * tl.maximum(length, 1))
    return tl.where(length <= keys, position, between).to(tl.int32)


@triton.jit(do_not_specialize=["sequences"])
def _place_runs(begins, lefts, shares, bounds_k, lengths, sequences, TABLE: tl.constexpr):
    """Writes where runs lie: first position, left key, and the right key's share at the first position.

    Rows of a sequence begin at bounds_k + sequence. The left key of the first run is -1 where L > Tk.
    """
    sequence, start_k, keys, block = _sequence(bounds_k, sequences, tl.program_id(0), TABLE)
    length = tl.load(lengths + sequence)
    runs, _ = _count_runs(keys, length)
    run = block * TABLE + tl.arange(0, TABLE)
    direct = length <= keys
    # A position's place between the keys, and a key's among the positions: `place` is the left key where
    # L <= Tk, else the first position.
    divisor = 2 * tl.maximum(tl.where(direct, length, keys), 1)
    numerator = 2 * run * tl.where(direct, keys, length) + tl.where(direct, keys - length, keys - length - 1)
    numerator = tl.maximum(numerator, 0)
    place = numerator // divisor
    rest = numerator - place * divisor
    share = tl.where(direct, rest, divisor - 1 - rest).to(tl.float32) / (2 * tl.maximum(length, 1)).to(
        tl.float32
    )
    share = tl.where(direct | ((run > 0) & (run < keys)), share, tl.where(run > 0, 0.0, 1.0))
    row = start_k + sequence + run
    tl.store(begins + row, tl.where(direct, run, place).to(tl.int32), run < runs)
    tl.store(lefts + row, tl.where(direct, place, run - 1).to(tl.int32), run < runs)
    tl.store(shares + row, share, run < runs)


@triton.jit
def _load_runs(begins, lefts, shares, first, run, known, keys, length):
    """Of known runs: first position, end, left key, share of the right key at the first position, its step.

    What is not known has no position. `first` is the table's row of run 0.
    """
    begin = tl.load(begins + first + run, known, other=0)
    last = tl.where(length > keys, keys, length - 1)
    end = tl.load(begins + first + run + 1, known & (run < last), other=0)
    end = tl.where(known & (run == last), length.to(tl.int32), end)
    left = tl.load(lefts + first + run, known, other=0)
    share = tl.load(shares + first + run, known, other=0.0)
    # The outermost runs are constant; where L <= Tk a run is one position.
    pace = tl.where(length > keys, keys.to(tl.float32) / tl.maximum(length, 1).to(tl.float32), 0.0)
    return begin, end, left, share, tl.where((run > 0) & (run < keys), pace, 0.0)


@triton.jit
def _seen(row, offset, length, window):
    """First position each query sees, and the end."""
    position = row + offset
    low = tl.minimum(tl.maximum(position - window, 0), length)
    high = tl.minimum(tl.maximum(position + window + 1, 0), length)
    return low.to(tl.int32), high.to(tl.int32)


@triton.jit
def _power_less_one(exponent):
    """2^exponent - 1 for an exponent <= 0, to fp32's relative precision near 0 too."""
    z = exponent * LN2
    series = tl.fma(z, 0.001388888888888889, 0.008333333333333333)
    series = tl.fma(z, tl.fma(z, tl.fma(z, series, 0.041666666666666664), 0.16666666666666666), 0.5)
    return tl.where(z > -0.25, z * tl.fma(z, series, 1.0), tl.exp2(exponent) - 1.0)


@triton.jit
def _power_sums(excess, count, longest, SECOND: tl.constexpr):
    """Sums of r^t, t r^t and t^2 r^t, r = 1 + excess, over t in [0, count); anything finite where count < 1.

    Powers are formed from r - 1: that of an r near 1 would carry the rounding of r, count times over.
    """
    total = tl.full(excess.shape, 1.0, tl.float32)
    first = tl.zeros_like(excess)
    second = tl.zeros_like(excess)
    if longest <= TERMS:
        term = 1.0 + excess
        for t in range(1, longest.to(tl.int32)):
            term = tl.where(t < count, term, 0.0)
            total += term
            first = tl.fma(term, t * 1.0, first)
            if SECOND:
                second = tl.fma(term, t * t * 1.0, second)
            term = tl.fma(term, excess, term)
    else:
        total = tl.zeros_like(excess)
        power = tl.zeros_like(excess)  # r^terms - 1
        levels = 0
        while (longest >> levels) > 0:
            levels += 1
        for level in range(levels):
            # The sums over the leading bits of count, first twice as many terms, then one more in front.
            terms = (count >> (levels - level)).to(tl.float32)
            odd = ((count >> (levels - 1 - level)) & 1) != 0
            if SECOND:
                further = tl.fma(terms, tl.fma(terms, total, 2 * first), second)
                second += tl.fma(power, further, further)
            further = tl.fma(terms, total, first)
            first += tl.fma(power, further, further)
            total = tl.fma(power, total, 2 * total)
            power = tl.fma(power, power, 2 * power)
            if SECOND:
                further = second + 2 * first + total
                second = tl.where(odd, tl.fma(excess, further, further), second)
            further = first + total
            first = tl.where(odd, tl.fma(excess, further, further), first)
            total = tl.where(odd, tl.fma(excess, total, total) + 1.0, total)
            power = tl.where(odd, tl.fma(excess, power, power + excess), power)
    return total, first, second


@triton.jit
def _moments(
    logit, slope, begin, end, share, step, low, high, longest, WINDOWED: tl.constexpr, SECOND: tl.constexpr
):
    """Of each query and run: the largest logit (base 2), and over 2^(logit - largest) of every seen position
    the sums of 1 - w, of w and, with SECOND, of w^2."""
    if WINDOWED:
        start = tl.maximum(begin, low)
        share += (start - begin).to(tl.float32) * step
        count = tl.minimum(end, high) - start
    else:
        count = end - begin
    rising = slope > 0
    anchor = share + tl.where(rising, (count - 1).to(tl.float32) * step, 0.0)
    away = tl.where(rising, -step, step)  # of w, from the larger end
    top = tl.where(count > 0, tl.fma(slope, anchor, logit), -float("inf"))
    total, first, second = _power_sums(_power_less_one(slope * away), count, longest, SECOND)
    moved = away * first
    right = tl.fma(anchor, total, moved)
    left = tl.fma(1.0 - anchor, total, -moved)
    if SECOND:
        second = tl.fma(away * away, second, anchor * tl.fma(2.0, moved, anchor * total))
    return top, left, right, second


@triton.jit
def _dot(a, b, to, UPCAST: tl.constexpr):
    if UPCAST:  # the interpreter multiplies the bits of bf16
        a, b = a.to(tl.float32), b.to(tl.float32)
    return tl.dot(a, b, to, input_precision="ieee")


@triton.jit
def _weigh(weights, raw, to, UPCAST: tl.constexpr):
    """to + weights @ raw, weights to 16 bits of mantissa or as fp32 where raw is."""
    if raw.dtype == tl.float32:
        return _dot(weights, raw, to, UPCAST)
    high = weights.to(tl.bfloat16)
    low = (weights - high.to(tl.float32)).to(tl.bfloat16)
    if raw.dtype == tl.bfloat16:
        return _dot(high, raw, _dot(low, raw, to, UPCAST), UPCAST)
    # fp16 weights would overflow or vanish; two bf16 hold an fp16 number exactly.
    wide = raw.to(tl.float32)
    raw_high = wide.to(tl.bfloat16)
    raw_low = (wide - raw_high.to(tl.float32)).to(tl.bfloat16)
    to = _dot(high, raw_low, _dot(low, raw_high, to, UPCAST), UPCAST)
    return _dot(high, raw_high, to, UPCAST)


@triton.jit
def _load(places, inside, start, width, COLUMNS: tl.constexpr):
    """[rows, COLUMNS] from column `start` of the rows that begin at `places`."""
    column = start + tl.arange(0, COLUMNS)
    return tl.load(places[:, None] + column[None, :], inside[:, None] & (column < width)[None, :], other=0.0)


@triton.jit
def _store(places, rows, inside, start, width, COLUMNS: tl.constexpr):
    """Writes [rows, COLUMNS] from column `start` of the rows that begin at `places`."""
    column = start + tl.arange(0, COLUMNS)
    kept = inside[:, None] & (column < width)[None, :]
    tl.store(places[:, None] + column[None, :], rows.to(places.dtype.element_ty), kept)


@triton.jit
def _pair(
    x, x_inside, left, right, inside, width,
    PADDED: tl.constexpr, CHUNK: tl.constexpr, ACROSS: tl.constexpr, SLOPE: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """Products of rows of x with left keys, and with right ones or, for SLOPE, with right less left.

    [x, keys], or [keys, x] where the keys go ACROSS.
    """
    if ACROSS:
        first = tl.zeros([left.shape[0], x.shape[0]], tl.float32)
    else:
        first = tl.zeros([x.shape[0], left.shape[0]], tl.float32)
    second = tl.zeros_like(first)
    for start in tl.static_range(0, PADDED, CHUNK):
        rows = _load(x, x_inside, start, width, CHUNK)
        a = _load(left, inside, start, width, CHUNK)
        b = _load(right, inside, start, width, CHUNK)
        if SLOPE and a.dtype == tl.float32:
            b -= a  # not the difference of products: it would carry the rounding of both
        if ACROSS:
            first = _dot(a, tl.trans(rows), first, UPCAST)
            second = _dot(b, tl.trans(rows), second, UPCAST)
        else:
            first = _dot(rows, tl.trans(a), first, UPCAST)
            second = _dot(rows, tl.trans(b), second, UPCAST)
    if SLOPE and x.dtype.element_ty != tl.float32:
        second -= first  # products of half-precision numbers are exact in fp32
    return first, second


@triton.jit
def _query_block(
    bounds_q, bounds_k, lengths, offsets, sequences, window, WINDOWED: tl.constexpr, ROWS: tl.constexpr
):
    """What a program over queries works on, and the runs some of them see: none where there is no query."""
    sequence, start_q, queries, block = _sequence(bounds_q, sequences, tl.program_id(0), ROWS)
    start_k = tl.load(bounds_k + sequence)
    keys = tl.load(bounds_k + sequence + 1) - start_k
    length, offset = tl.load(lengths + sequence), tl.load(offsets + sequence)
    first_row = block * ROWS
    row = first_row + tl.arange(0, ROWS)
    low, high = _seen(row, offset, length, window)
    runs, longest = _count_runs(keys, length)
    first_run = 0
    if WINDOWED:
        least, _ = _seen(first_row, offset, length, window)
        _, most = _seen(tl.minimum(first_row + ROWS, queries) - 1, offset, length, window)
        first_run = _run_at(least.to(tl.int64), keys, length)
        last_run = _run_at(tl.maximum(most - 1, 0).to(tl.int64), keys, length)
        runs = tl.where(least < most, tl.minimum(runs, last_run + 1), 0)
        longest = tl.minimum(longest, 2 * window.to(tl.int64) + 1)
    runs = tl.where(first_row < queries, runs, 0)
    return (
        start_q + row, row < queries, start_k, start_k + sequence, keys, length, low, high,
        first_run, runs, longest,
    )  # fmt: skip


@triton.jit
def _meet(
    q, k, places, inside, level, low, high, run, runs, begins, lefts, shares, table, start_k, keys, length,
    longest, heads, width, factor,
    WINDOWED: tl.constexpr, SECOND: tl.constexpr, PADDED: tl.constexpr, CHUNK: tl.constexpr,
    UPCAST: tl.constexpr,
):  # fmt: skip
    """`_moments` of rows of queries and these runs, which runs there are, and where their two keys begin."""
    known = run < runs
    begin, end, left, share, step = _load_runs(begins, lefts, shares, table, run, known, keys, length)
    right = ((start_k + tl.minimum(left + 1, keys - 1)) * heads + tl.program_id(1)) * width
    left = ((start_k + tl.maximum(left, 0)) * heads + tl.program_id(1)) * width
    logit, slope = _pair(
        q + places, inside, k + left, k + right, known, width, PADDED, CHUNK, False, True, UPCAST
    )
    top, to_left, to_right, second = _moments(
        tl.fma(logit, factor, -level[:, None]), slope * factor, begin[None, :], end[None, :],
        share[None, :], step[None, :], low[:, None], high[:, None], longest, WINDOWED, SECOND,
    )  # fmt: skip
    return top, to_left, to_right, second, known, left, right


@triton.jit(do_not_specialize=["sequences", "heads", "width_units", "window"])
def _attend(
    q, k, v, output, lse, bounds_q, bounds_k, lengths, offsets, begins, lefts, shares, sequences, heads,
    width_units, window, scale,
    ALIGN: tl.constexpr, WINDOWED: tl.constexpr, ROWS: tl.constexpr, RUNS: tl.constexpr,
    PADDED: tl.constexpr, CHUNK: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of ROWS queries of one sequence and one head."""
    row, inside, start_k, table, keys, length, low, high, first_run, runs, longest = _query_block(
        bounds_q, bounds_k, lengths, offsets, sequences, window, WINDOWED, ROWS
    )
    width = width_units * ALIGN
    row = row * heads + tl.program_id(1)
    places = row * width
    highest = tl.full([ROWS], -float("inf"), tl.float32)
    norm = tl.zeros([ROWS], tl.float32)
    total = tl.zeros([ROWS, PADDED], tl.float32)
    for start in range(first_run, runs, RUNS):
        top, to_left, to_right, _, known, left, right = _meet(
            q, k, places, inside, tl.zeros([ROWS], tl.float32), low, high, start + tl.arange(0, RUNS), runs,
            begins, lefts, shares, table, start_k, keys, length, longest, heads, width, scale * LOG2E,
            WINDOWED, False, PADDED, CHUNK, UPCAST,
        )  # fmt: skip
        before = highest
        highest = tl.maximum(highest, tl.max(top, axis=1))
        level = tl.where(highest == -float("inf"), 0.0, highest)
        shrink = tl.exp2(before - level)
        part = tl.exp2(top - level[:, None])
        to_left, to_right = to_left * part, to_right * part
        norm = tl.fma(norm, shrink, tl.sum(to_left + to_right, axis=1))
        total = total * shrink[:, None]
        total = _weigh(to_left, _load(v + left, known, 0, width, PADDED), total, UPCAST)
        total = _weigh(to_right, _load(v + right, known, 0, width, PADDED), total, UPCAST)
    seeing = norm > 0
    norm = tl.where(seeing, norm, 1.0)
    tl.store(lse + row, tl.where(seeing, (highest + tl.log2(norm)) * LN2, -float("inf")), inside)
    _store(output + places, total / norm[:, None], inside, 0, width, PADDED)


@triton.jit
def _level(lse):
    """A whole number near lse / log(2): taking it off a logit rounds nothing, and shares are normed later."""
    return tl.where(lse == -float("inf"), 0.0, tl.floor(lse * LOG2E))


@triton.jit
def _change(top, to_left, to_right, second, at_left, at_right):
    """Weights of left and right value, and the logits' gradients summed towards left and right key.

    `at_left` and `at_right` are the gradient's products with the two values, less those with the output.
    """
    part = tl.exp2(top)
    mixed, low = to_right - second, to_left - to_right + second
    left = part * tl.fma(at_left, low, at_right * mixed)
    right = part * tl.fma(at_left, mixed, at_right * second)
    return part * to_left, part * to_right, left, right


@triton.jit(do_not_specialize=["sequences", "heads", "width_units", "window"])
def _query_gradients(
    gradient, output, lse, delta, inverses, q, k, v, dq, bounds_q, bounds_k, lengths, offsets, begins, lefts,
    shares, sequences, heads, width_units, window, scale,
    ALIGN: tl.constexpr, WINDOWED: tl.constexpr, ROWS: tl.constexpr, RUNS: tl.constexpr,
    PADDED: tl.constexpr, CHUNK: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """dq of ROWS queries of one sequence and one head; for the key kernel, what norms shares, and delta.

    Delta, the sum of gradient times output, carries the output's rounding, and what it is off by makes the
    logits' gradients sum to something else than 0. So it is put right by that sum: for the key kernel always,
    for dq where keys are fp32 (runs are met twice; in half precision dq is itself rounded as coarsely).
    """
    row, inside, start_k, table, keys, length, low, high, first_run, runs, longest = _query_block(
        bounds_q, bounds_k, lengths, offsets, sequences, window, WINDOWED, ROWS
    )
    width = width_units * ALIGN
    row = row * heads + tl.program_id(1)
    places = row * width
    own = tl.zeros([ROWS], tl.float32)
    for start in tl.static_range(0, PADDED, CHUNK):
        g = _load(gradient + places, inside, start, width, CHUNK).to(tl.float32)
        own += tl.sum(g * _load(output + places, inside, start, width, CHUNK).to(tl.float32), axis=1)
    level = _level(tl.load(lse + row, inside, other=0.0))
    PASSES: tl.constexpr = 2 if k.dtype.element_ty == tl.float32 else 1
    for turn in tl.static_range(PASSES):
        norm = tl.zeros([ROWS], tl.float32)
        excess = tl.zeros([ROWS], tl.float32)
        total = tl.zeros([ROWS, PADDED], tl.float32)
        for start in range(first_run, runs, RUNS):
            top, to_left, to_right, second, known, left, right = _meet(
                q, k, places, inside, level, low, high, start + tl.arange(0, RUNS), runs, begins, lefts,
                shares, table, start_k, keys, length, longest, heads, width, scale * LOG2E,
                WINDOWED, True, PADDED, CHUNK, UPCAST,
            )  # fmt: skip
            at_left, at_right = _pair(
                gradient + places, inside, v + left, v + right, known, width,
                PADDED, CHUNK, False, False, UPCAST,
            )  # fmt: skip
            weight_left, weight_right, to_left, to_right = _change(
                top, to_left, to_right, second, at_left - own[:, None], at_right - own[:, None]
            )
            norm += tl.sum(weight_left + weight_right, axis=1)
            excess += tl.sum(to_left + to_right, axis=1)
            if turn == PASSES - 1:
                total = _weigh(to_left, _load(k + left, known, 0, width, PADDED), total, UPCAST)
                total = _weigh(to_right, _load(k + right, known, 0, width, PADDED), total, UPCAST)
        inverse = 1.0 / tl.where(norm > 0, norm, 1.0)
        own = tl.fma(excess, inverse, own)
    tl.store(inverses + row, inverse, inside)
    tl.store(delta + row, own, inside)
    _store(dq + places, total * (inverse * scale)[:, None], inside, 0, width, PADDED)


@triton.jit
def _store_keys(
    to, left, right, inside, alone, adjoins, start, stride, width, RUNS: tl.constexpr, COLUMNS: tl.constexpr
):
    """Writes each run's left key, with what the run before gives it, and right keys where no run begins."""
    before = tl.maximum(tl.arange(0, RUNS) - 1, 0)
    shifted = tl.gather(right, tl.broadcast_to(before[:, None], [RUNS, COLUMNS]), 0)
    _store(to, left + tl.where(adjoins[:, None], shifted, 0.0), inside, start, width, COLUMNS)
    _store(to + stride, right, alone, start, width, COLUMNS)


@triton.jit(do_not_specialize=["sequences", "heads", "width_units", "window"])
def _key_gradients(
    gradient, lse, delta, inverses, q, k, v, dk, dv, bounds_q, bounds_k, lengths, offsets, begins, lefts,
    shares, sequences, heads, width_units, window, scale,
    ALIGN: tl.constexpr, WINDOWED: tl.constexpr, ROWS: tl.constexpr, RUNS: tl.constexpr,
    PADDED: tl.constexpr, CHUNK: tl.constexpr, UPCAST: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """dk and dv of the keys of RUNS - 1 runs of one sequence and one head, COLUMNS of them.

    The run before them, the halo, is met again: what it gives its right key belongs to the first run's left.
    """
    sequence, start_k, keys, block = _sequence(bounds_k, sequences, tl.program_id(0), RUNS - 1)
    length, offset = tl.load(lengths + sequence), tl.load(offsets + sequence)
    runs, longest = _count_runs(keys, length)
    start_q = tl.load(bounds_q + sequence)
    queries = tl.load(bounds_q + sequence + 1) - start_q
    width = width_units * ALIGN
    head, column = tl.program_id(1), tl.program_id(2) * COLUMNS
    table = start_k + sequence
    ordinal = tl.arange(0, RUNS)
    run = (block * (RUNS - 1) - 1).to(tl.int32) + ordinal
    known = (run >= 0) & (run < runs)
    begin, end, key, share, step = _load_runs(begins, lefts, shares, table, run, known, keys, length)
    right = ((start_k + tl.minimum(key + 1, keys - 1)) * heads + head) * width
    left = ((start_k + tl.maximum(key, 0)) * heads + head) * width
    first_row, last_row = queries * 0, tl.where(block * (RUNS - 1) < runs, queries, 0)
    if WINDOWED:
        least = tl.min(tl.where(known, begin, 2147483647)).to(tl.int64)
        first_row = tl.maximum(least - window - offset, 0)
        last_row = tl.minimum(last_row, tl.max(end).to(tl.int64) + window - offset)
        longest = tl.minimum(longest, 2 * window.to(tl.int64) + 1)
    k_left = tl.zeros([RUNS, COLUMNS], tl.float32)
    k_right, v_left, v_right = k_left, k_left, k_left
    for start in range(0, (last_row - first_row).to(tl.int32), ROWS):
        if k.dtype.element_ty == tl.float32:
            tl.debug_barrier()  # keeps the compiler from holding all fp32 keys and values in registers
        row = first_row + start + tl.arange(0, ROWS)  # from 0 on: else no read of rows is seen to be aligned
        inside = row < last_row
        low, high = _seen(row, offset, length, window)
        row = (start_q + row) * heads + head
        level = _level(tl.load(lse + row, inside, other=0.0))
        own = tl.load(delta + row, inside, other=0.0)
        inverse = tl.load(inverses + row, inside, other=0.0)
        places = row * width
        logit, slope = _pair(
            q + places, inside, k + left, k + right, known, width, PADDED, CHUNK, True, True, UPCAST
        )
        top, to_left, to_right, second = _moments(
            tl.fma(logit, scale * LOG2E, -level[None, :]), slope * (scale * LOG2E), begin[:, None],
            end[:, None], share[:, None], step[:, None], low[None, :], high[None, :], longest, WINDOWED, True,
        )  # fmt: skip
        at_left, at_right = _pair(
            gradient + places, inside, v + left, v + right, known, width, PADDED, CHUNK, True, False, UPCAST
        )
        to_left, to_right, change_left, change_right = _change(
            top, to_left, to_right, second, at_left - own[None, :], at_right - own[None, :]
        )
        g = _load(gradient + places, inside, column, width, COLUMNS)
        v_left = _weigh(to_left * inverse[None, :], g, v_left, UPCAST)
        v_right = _weigh(to_right * inverse[None, :], g, v_right, UPCAST)
        rows = _load(q + places, inside, column, width, COLUMNS)
        k_left = _weigh(change_left * inverse[None, :], rows, k_left, UPCAST)
        k_right = _weigh(change_right * inverse[None, :], rows, k_right, UPCAST)
    before = tl.load(lefts + table + run - 1, known & (run > 0), other=-2)
    after = tl.load(lefts + table + run + 1, known & (run + 1 < runs), other=-2)
    owned = known & (ordinal > 0)
    inside, alone = owned & (key >= 0), owned & (key + 1 < keys) & (after != key + 1)
    adjoins = before + 1 == key
    place = ((start_k + key) * heads + head) * width
    stride = heads * width
    _store_keys(
        dk + place,
        k_left * scale,
        k_right * scale,
        inside,
        alone,
        adjoins,
        column,
        stride,
        width,
        RUNS,
        COLUMNS,
    )
    _store_keys(dv + place, v_left, v_right, inside, alone, adjoins, column, stride, width, RUNS, COLUMNS)


_KERNELS = {"attend": _attend, "query_gradients": _query_gradients, "key_gradients": _key_gradients}
Packing = tuple[Tensor, ...]


def _ready(t: Tensor, width: int) -> Tensor:
    """Contiguous, at 16 bytes, rows padded with zeros to `width`: as the compiled kernels expect it."""
    t = torch.nn.functional.pad(t, (0, width - t.shape[-1])) if t.shape[-1] < width else t.contiguous()
    return t.clone() if t.data_ptr() % 16 else t


def _launch(
    kernel: str, tensors: tuple[Tensor, ...], packing: Packing, window: int | None, scale: float
) -> None:
    """Starts at least as many programs as there are blocks: their number is not read from the device."""
    short, (_, heads, width) = DTYPES[tensors[0].dtype], tensors[0].shape
    constants = constants_of(kernel, short, width, window is not None, tensors[0].device.type == "cpu")
    of_keys, sequences = kernel == "key_gradients", packing[2].shape[0]
    blocks = (
        tensors[-1].shape[0] // (constants["RUNS"] - 1)
        if of_keys
        else tensors[0].shape[0] // constants["ROWS"]
    )
    parts = constants["PADDED"] // constants.get("COLUMNS", constants["PADDED"])
    _KERNELS[kernel][grid(blocks + sequences, heads, parts)](
        *tensors, *packing, sequences, heads, width // ALIGN, min(window or 0, 1 << 30), scale,
        **constants, **options_of(kernel, short, width),
    )  # fmt: skip


def _runs_of(total_k: int, packing: Packing) -> tuple[Tensor, Tensor, Tensor]:
    """The table of runs: int32, int32 and fp32 [total_k + sequences]."""
    sequences, size = packing[2].shape[0], total_k + packing[2].shape[0]
    begins, lefts, shares = (
        packing[2].new_empty(size, dtype=kind) for kind in (torch.int32, torch.int32, torch.float32)
    )
    _place_runs[grid(total_k // TABLE + sequences)](
        begins, lefts, shares, packing[1], packing[2], sequences, TABLE=TABLE, **TABLE_OPTIONS
    )
    return begins, lefts, shares


@launches
def launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    output: Tensor,
    lse: Tensor,
    packing: Packing,
    window: int | None,
    scale: float,
) -> None:
    """Writes every element of output [total_q, H, d] and lse [total_q, H].

    Args:
        q: [total_q, H, d], d a multiple of ALIGN; like all tensors here contiguous and at 16 bytes.
        k: [total_k, H, d] of q's dtype.
        v: [total_k, H, d] of q's dtype.
        output: Any float dtype.
        lse: fp32.
        packing: bounds of queries, bounds of keys, lengths and offsets, int64.
        window: Positions seen on either side, or None for all.
        scale: Factor of the logits.
    """
    if q.numel():
        table = _runs_of(k.shape[0], packing)
        _launch("attend", (q, k, v, output, lse), (*packing, *table), window, scale)


@launches
def launch_backward(
    gradient: Tensor,
    output: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dq: Tensor,
    dk: Tensor,
    dv: Tensor,
    packing: Packing,
    window: int | None,
    scale: float,
) -> None:
    """Writes every element of dq and those of dk and dv that have a position near; see `launch`.

    Where L < Tk, keys between the positions keep what dk and dv hold: 0.
    """
    if not q.numel():
        return
    delta, inverses = torch.empty_like(lse), torch.empty_like(lse)
    packing = *packing, *_runs_of(k.shape[0], packing)
    rows = gradient, output, lse, delta, inverses, q, k, v
    _launch("query_gradients", (*rows, dq), packing, window, scale)
    if k.shape[0]:
        _launch("key_gradients", (gradient, *rows[2:], dk, dv), packing, window, scale)


@launches
def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds_q: Tensor,
    bounds_k: Tensor,
    lengths: Tensor,
    offsets: Tensor,
    window: int | None,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """See `csm_kernels.interpolated_attention`; q, k and v are fp32, bf16 or fp16.

    Returns:
        [total_q, H, d] in q's dtype, and [total_q, H] fp32, the natural logarithm of the sum of the
        exponentials: -inf where a query sees nothing.
    """
    width = q.shape[-1]
    padded = -(-width // ALIGN) * ALIGN
    q, k, v = (_ready(t, padded) for t in (q, k, v))
    packing = tuple(_ready(t, t.shape[-1]) for t in (bounds_q, bounds_k, lengths, offsets))
    output = torch.empty_like(q)
    lse = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device)
    launch(q, k, v, output, lse, packing, window, scale)
    return output[..., :width].contiguous(), lse


@launches
def attend_backward(
    gradient: Tensor,
    output: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    bounds_q: Tensor,
    bounds_k: Tensor,
    lengths: Tensor,
    offsets: Tensor,
    window: int | None,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v in their dtypes, from what `attend` took and gave; the same bits every time."""
    width = q.shape[-1]
    padded = -(-width // ALIGN) * ALIGN
    gradient, output, q, k, v = (_ready(t, padded) for t in (gradient, output, q, k, v))
    packing = tuple(_ready(t, t.shape[-1]) for t in (bounds_q, bounds_k, lengths, offsets))
    gradients = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
    launch_backward(gradient, output, _ready(lse, lse.shape[-1]), q, k, v, *gradients, packing, window, scale)
    dq, dk, dv = (t[..., :width].contiguous() for t in gradients)
    return dq, dk, dv


SHIPPED = (
    shipped("place_runs", _place_runs, "", {"TABLE": TABLE}, TABLE_OPTIONS),
    *(
        shipped(
            f"{name}_{short}_{width}" + "_window" * windowed,
            kernel,
            short,
            constants_of(name, short, width, windowed, False),
            options_of(name, short, width),
        )  # fmt: skip
        for name, kernel in _KERNELS.items()
        for short in DTYPES.values()
        for width in WIDTHS
        for windowed in (False, True)
    ),
)
