"""rvq_search on a GPU: all levels in one launch for many rows, codes split over programs for few.

What is promised. Scores are fp32 (`input_precision="ieee"`: fused multiply-adds on NVIDIA, fp32 matrix
instructions on AMD, never TF32). All kernels form a score from the same products, [ROWS, BLOCK_D] x
[BLOCK_D, CODES] added up in the order of D: a row's codes, quantized and residual have the same bits alone,
in any batch, in any order, in any kernel. Of equal scores the lowest index wins: the kernel of all levels
keeps the first of equal ones, the split one compares candidates as one 64-bit integer, score in the upper
half (its bits reordered so that integers compare as floats do), index in the lower. The minimum of integers
does not depend on the order of comparisons, so programs may share it through one atomic. A row that is not
finite gets codes in [0, V).

Nothing of size N x V exists. The residual lives in memory of its own (in the L2 cache), not in registers,
with a barrier between the threads that write it and the level that reads it.

Rows and codewords are first laid out as tiles [D, 64], zeros where there is no row or column. Neighbouring
lanes then read neighbouring words of shared memory, and no read of the inner loop has a mask; with D
innermost 16 lanes met in one bank.

NVIDIA has no matrix instructions for fp32. `scan` therefore scores all codes by products of bf16, each number
as the sum of two, and bounds how far such a score may be from the fp32 score. Where only one code is within
twice the bound of the least score it is the code of the fp32 search; for the other rows the tiles of codes
that hold one within it are scored again in fp32. The codes are those of `levels`, bit by bit.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.runtime import driver

from csm_kernels.device import grid, launches, processors
from csm_kernels.shipped import FP_FUSION, Shipped

ROWS, CODES = 64, 64  # of one product: 32 sums per thread, which leave every target room for its operands
BLOCK_D = 16  # of one step; the least that Triton's products take on every target (3.6 refuses 8)
ALIGN = 4  # a row is whole groups of 16 bytes; other widths are padded with zeros, which change no sum
GROUP = 16  # codes that are scored again at once
WARPS = 4
# Two stages in _search_levels take 255 registers a thread: one program a processor in place of three.
STAGES_LEVELS, STAGES_SPLIT = 1, 2
# Warps and stages of a scan by generation. Four warps are the one group that Hopper's instructions read
# shared memory for: with eight, operands go through registers, at 13 times the cycles. Elsewhere four spill.
SCANS = {8: (8, 3), 9: (4, 3), 10: (8, 1), 12: (8, 3)}
# Depths of tiles that a scan keeps in shared memory for a level, by generation, and its stages then. The
# copies of a pipeline pass the L1 cache by: read in steps, rows come from the L2 for each part of the codes.
HELD, STAGES_HELD = {9: (64, 128)}, 2
# Programs that a processor needs to hide its waits: with fewer rows the codes are split too.
PROGRAMS = 2

Kernel = Literal["levels", "scan", "split"]

_NO_KEY: tl.constexpr = tl.constexpr((1 << 63) - 1)


@triton.jit
def _depth(width, BLOCK_D: tl.constexpr):
    """Columns of a tile: whole blocks."""
    return tl.cdiv(width, BLOCK_D) * BLOCK_D


@triton.jit
def _eight_bits(values):
    """fp32 rounded to the nearest that bf16 holds, by fp32 alone: casts of the interpreter truncate."""
    spread = values * 65537.0
    return spread - (spread - values)


@triton.jit
def _store_pair(place, half, values):
    """Each fp32 as bf16 and, `half` further, what that leaves as bf16."""
    rounded = _eight_bits(values)
    tl.store(place, rounded.to(tl.bfloat16))
    tl.store(place + half, _eight_bits(values - rounded).to(tl.bfloat16))


@triton.jit(do_not_specialize=["size", "width_units"])
def _lay_out(
    source, tiles, half_norms, size, width_units,
    ALIGN: tl.constexpr, ROWS: tl.constexpr, BLOCK_D: tl.constexpr, NORMS: tl.constexpr,
):  # fmt: skip
    """One tile [D, ROWS] of a matrix [size, D]; with NORMS 0.5 |row|^2, infinite where there is no row."""
    width = width_units * ALIGN  # so the compiler sees that rows are whole groups of 16 bytes
    lane = tl.arange(0, ROWS)
    row = tl.program_id(0) * ROWS + lane
    inside = row < size
    tile = tl.program_id(1) * tl.num_programs(0) + tl.program_id(0)
    source += (tl.program_id(1).to(tl.int64) * size + row)[:, None] * width
    tiles += tile.to(tl.int64) * _depth(width, BLOCK_D) * ROWS
    total = tl.zeros([ROWS], tl.float32)
    for start in range(0, width, BLOCK_D):
        d = (start + tl.arange(0, BLOCK_D))[None, :]
        entries = tl.load(source + d, inside[:, None] & (d < width), other=0.0)
        tl.store(tiles + d * ROWS + lane[:, None], entries)
        total += tl.sum(entries * entries, axis=1)
    if NORMS:
        tl.store(half_norms + tile * ROWS + lane, tl.where(inside, 0.5 * total, float("inf")))


@triton.jit(do_not_specialize=["size"])
def _pair(tiles, pairs, size, ROWS: tl.constexpr, BLOCK_D: tl.constexpr):
    """A tile of `size` numbers as pairs of bf16, [2, size]."""
    tiles += tl.program_id(0).to(tl.int64) * size
    pairs += tl.program_id(0).to(tl.int64) * size * 2
    for start in range(0, size, BLOCK_D * ROWS):
        place = start + tl.arange(0, BLOCK_D * ROWS)
        _store_pair(pairs + place, size, tl.load(tiles + place))


@triton.jit
def _keys(scores, codes):
    """(score, code) as one int64 that compares like the pair; what is no number counts as infinite."""
    scores = tl.where(scores < float("inf"), scores, float("inf"))
    bits = scores.to(tl.int32, bitcast=True)
    ordered = tl.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return (ordered.to(tl.int64) << 32) | codes.to(tl.int64)


@triton.jit
def _code_of(keys):
    return keys & 0xFFFFFFFF


@triton.jit
def _multiply(tile, table, width, ROWS: tl.constexpr, CODES: tl.constexpr, BLOCK_D: tl.constexpr):
    """Products [ROWS, CODES] of a tile of rows and a tile of codes."""
    products = tl.zeros([ROWS, CODES], tl.float32)
    for start in range(0, width, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        r = tl.load(tile + d[None, :] * ROWS + tl.arange(0, ROWS)[:, None])
        c = tl.load(table + d[:, None] * CODES + tl.arange(0, CODES)[None, :])
        products = tl.dot(r, c, products, input_precision="ieee")
    return products


@triton.jit
def _advance(
    tile, pairs, residual, quantized, book, row, inside, code, level, levels, width,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """Takes a level's codes off a tile and adds them to quantized; gives the square of what is left.

    The last level's rest goes to `residual`.
    """
    total = tl.zeros([ROWS], tl.float64)
    place, lane = row[:, None] * width, tl.arange(0, ROWS)[:, None]
    for start in range(0, width, BLOCK_D):
        d = (start + tl.arange(0, BLOCK_D))[None, :]
        kept = inside[:, None] & (d < width)
        c = tl.load(book + code[:, None] * width + d, kept, other=0.0)
        r = tl.load(tile + d * ROWS + lane) - c
        if level == levels - 1:
            tl.store(residual + place + d, r, kept)
        else:
            tl.store(tile + d * ROWS + lane, r)
            if PAIRS:
                _store_pair(pairs + d * ROWS + lane, _depth(width, BLOCK_D) * ROWS, r)
        sums = tl.load(quantized + place + d, kept & (level > 0), other=0.0) + c
        tl.store(quantized + place + d, sums, kept)
        total += tl.sum(r.to(tl.float64) * r.to(tl.float64), axis=1)
    return total


@triton.jit
def _scores(tile, table, half_norms, width, ROWS: tl.constexpr, CODES: tl.constexpr, BLOCK_D: tl.constexpr):
    """fp32 scores [ROWS, CODES] of a tile of rows and a tile of codes.

    Scores are never -0, so that equal floats have equal bits, as `_keys` compares them.
    """
    products = _multiply(tile, table, width, ROWS, CODES, BLOCK_D)
    return tl.load(half_norms + tl.arange(0, CODES))[None, :] - products


@triton.jit
def _first(best, origin, CODES: tl.constexpr):
    """The code of each row: of the lanes' best scores the least, of equal ones the first."""
    codes = origin + tl.arange(0, CODES)[None, :]
    return tl.min(tl.where(best == tl.min(best, axis=1)[:, None], codes, 0x7FFFFFFF), axis=1)


@triton.jit
def _nearest(
    tile, tables, half_norms, parts, width, ROWS: tl.constexpr, CODES: tl.constexpr, BLOCK_D: tl.constexpr
):
    """The code of each row of a tile: of all codes of one codebook the first with the least score.

    Every lane keeps the best score of its own columns, the first of equal ones; the lanes meet once a level.
    """
    best = tl.full([ROWS, CODES], float("inf"), tl.float32)
    origin = tl.zeros([ROWS, CODES], tl.int32)
    for part in range(parts):
        scores = _scores(tile, tables, half_norms + part * CODES, width, ROWS, CODES, BLOCK_D)
        less = scores < best  # false for what is no number
        best = tl.where(less, scores, best)
        origin = tl.where(less, part * CODES, origin)
        tables += _depth(width, BLOCK_D) * CODES
    return _first(best, origin, CODES).to(tl.int64)


@triton.jit
def _score_again(
    tile, tables, half_norms, group, width, ROWS: tl.constexpr, CODES: tl.constexpr, BLOCK_D: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    """`_scores` of a group of codes: the same bits from few registers, of which a scan has none to spare."""
    code = group * GROUP + tl.arange(0, GROUP)
    table = tables + (code // CODES).to(tl.int64) * _depth(width, BLOCK_D) * CODES + code % CODES
    products = tl.zeros([ROWS, GROUP], tl.float32)
    for d in range(width):
        r, c = tl.load(tile + d * ROWS + tl.arange(0, ROWS)), tl.load(table + d * CODES)
        products = tl.fma(r[:, None], c[None, :], products)
    return tl.load(half_norms + code)[None, :] - products


@triton.jit
def _bf16_dot(a, b, sums, UPCAST: tl.constexpr):
    if UPCAST:  # the interpreter multiplies the bits of bf16
        return tl.dot(a.to(tl.float32), b.to(tl.float32), sums)
    return tl.dot(a, b, sums)


@triton.jit
def _scan_scores(
    pairs, code_pairs, half_norms, width,
    ROWS: tl.constexpr, CODES: tl.constexpr, BLOCK_D: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """`_scores` of pairs of bf16; the product of two second numbers is left out.

    The small products come first: what their additions lose is a 256th of what the others lose.
    """
    row_half, code_half = _depth(width, BLOCK_D) * ROWS, _depth(width, BLOCK_D) * CODES
    of_row = pairs + tl.arange(0, BLOCK_D)[None, :] * ROWS + tl.arange(0, ROWS)[:, None]
    of_code = code_pairs + tl.arange(0, BLOCK_D)[:, None] * CODES + tl.arange(0, CODES)[None, :]
    products = tl.zeros([ROWS, CODES], tl.float32)
    for start in range(0, width, BLOCK_D):
        row, code = of_row + start * ROWS, of_code + start * CODES
        products = _bf16_dot(tl.load(row), tl.load(code + code_half), products, UPCAST)
        products = _bf16_dot(tl.load(row + row_half), tl.load(code), products, UPCAST)
    for start in range(0, width, BLOCK_D):
        row, code = of_row + start * ROWS, of_code + start * CODES
        products = _bf16_dot(tl.load(row), tl.load(code), products, UPCAST)
    return tl.load(half_norms + tl.arange(0, CODES))[None, :] - products


@triton.jit
def _scan_held(
    r, r_rest, code_pairs, half_norms,
    ROWS: tl.constexpr, CODES: tl.constexpr, HELD: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """`_scan_scores` of pairs of rows that were read before."""
    of_code = code_pairs + tl.arange(0, HELD)[:, None] * CODES + tl.arange(0, CODES)[None, :]
    c = tl.load(of_code)
    products = tl.zeros([ROWS, CODES], tl.float32)
    products = _bf16_dot(r, tl.load(of_code + HELD * CODES), products, UPCAST)
    products = _bf16_dot(r, c, _bf16_dot(r_rest, c, products, UPCAST), UPCAST)
    return tl.load(half_norms + tl.arange(0, CODES))[None, :] - products


@triton.jit
def _scan_error(square, largest, width):
    """Most that a scanned score is from the fp32 score, for rows of these squares and codes up to `largest`.

    With p = |r| |c|, at least the sum of |r_d c_d|: a pair is its number to 2^-18, and the product of two
    second numbers is as small, together below p 2^-16. Every addition of a matrix instruction may lose 2^-22
    of the largest number in it (they truncate): p for D products, p 2^-8 for two times D. Additions of the
    fp32 score lose 2^-24; together below D p 1.5 2^-22. Squares are rounded sums, in which numbers below
    1e-22 are 0; numbers below bf16's smallest may count as zero.
    """
    row, code = tl.sqrt(square) * 1.001 + 1e-18, tl.sqrt(largest) * 1.001 + 1e-18
    product = row * code
    error = product * (2.0**-16 + width * 1.5 * 2.0**-22) + (product + code * code) * 2.0**-22
    # Near the largest float a product of parts may be infinite where the fp32 score is not.
    return tl.where(product < 1e37, error + width * 1e-36 * (1 + row + code), float("inf"))


@triton.jit
def _nearest_scanned(
    tile, pairs, tables, code_pairs, half_norms, error, inside, parts, width,
    ROWS: tl.constexpr, CODES: tl.constexpr, BLOCK_D: tl.constexpr, GROUP: tl.constexpr,
    HELD: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """`_nearest` of rows whose scanned scores are within `error` of the fp32 ones."""
    best = tl.full([ROWS, CODES], float("inf"), tl.float32)
    second = tl.full([ROWS, CODES], float("inf"), tl.float32)
    origin = tl.zeros([ROWS, CODES], tl.int32)
    if HELD:
        of_row = pairs + tl.arange(0, HELD)[None, :] * ROWS + tl.arange(0, ROWS)[:, None]
        r, r_rest = tl.load(of_row), tl.load(of_row + HELD * ROWS)
    for part in range(parts):
        norms = half_norms + part * CODES
        if HELD:
            scores = _scan_held(r, r_rest, code_pairs, norms, ROWS, CODES, HELD, UPCAST)
        else:
            scores = _scan_scores(pairs, code_pairs, norms, width, ROWS, CODES, BLOCK_D, UPCAST)
        less = scores < best
        second = tl.where(less, best, tl.minimum(second, scores))
        best = tl.where(less, scores, best)
        origin = tl.where(less, part * CODES, origin)
        code_pairs += 2 * _depth(width, BLOCK_D) * CODES
    code = _first(best, origin, CODES)
    # Comparisons with what is no number are false: such rows stay unsettled.
    limit = (tl.min(best, axis=1) + 2.01 * error)[:, None]
    near = ~(best > limit)
    crowded = ~(second > limit)  # another code of the same lane is near
    codes = origin + tl.arange(0, CODES)[None, :]
    unsettled = (tl.max(((near & (codes != code[:, None])) | crowded).to(tl.int32), axis=1) > 0) & inside
    if tl.max(unsettled.to(tl.int32), axis=0) > 0:
        groups = parts * (CODES // GROUP)
        wanted = tl.where(near & unsettled[:, None], codes // GROUP, groups)
        # What else is near in a crowded lane was not kept: all groups are wanted.
        step = tl.max(tl.max((crowded & unsettled[:, None]).to(tl.int32), axis=1), axis=0)
        least = tl.full([ROWS, GROUP], float("inf"), tl.float32)
        begin = tl.zeros([ROWS, GROUP], tl.int32)
        group = tl.where(step > 0, 0, tl.min(tl.min(wanted, axis=1), axis=0))
        while group < groups:
            scores = _score_again(tile, tables, half_norms, group, width, ROWS, CODES, BLOCK_D, GROUP)
            less = scores < least
            least = tl.where(less, scores, least)
            begin = tl.where(less, group * GROUP, begin)
            later = tl.min(tl.min(tl.where(wanted > group, wanted, groups), axis=1), axis=0)
            group = tl.where(step > 0, group + 1, later)
        code = tl.where(unsettled, _first(least, begin, GROUP), code)
    return code.to(tl.int64)


@triton.jit(do_not_specialize=["rows", "levels", "size", "width_units"])
def _search_levels(
    tiles, codebooks, tables, half_norms, codes, quantized, residual, squares,
    rows, levels, size, width_units,
    ALIGN: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """All levels of ROWS rows; the residual stands in `tiles`, where x stood."""
    width = width_units * ALIGN
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    inside = row < rows
    tiles += tl.program_id(0).to(tl.int64) * _depth(width, BLOCK_D) * ROWS
    parts = tl.cdiv(size, CODES)
    table_size = parts.to(tl.int64) * CODES * _depth(width, BLOCK_D)
    for level in range(levels):
        code = _nearest(tiles, tables, half_norms, parts, width, ROWS, CODES, BLOCK_D)
        tl.store(codes + row * levels + level, code, inside)
        tl.debug_barrier()  # every thread has read the residual that is overwritten now
        left = _advance(
            tiles, tiles, residual, quantized, codebooks, row, inside, code, level, levels, width,
            ROWS, BLOCK_D, False,
        )  # fmt: skip
        tl.store(squares + row * levels + level, left, inside)
        tl.debug_barrier()  # other threads wrote the residual that is read next
        codebooks += size.to(tl.int64) * width
        tables += table_size
        half_norms += parts * CODES


@triton.jit(do_not_specialize=["rows", "levels", "size", "width_units"])
def _search_scanned(
    tiles, pairs, row_norms, codebooks, tables, code_pairs, half_norms, largest, codes, quantized, residual,
    squares, rows, levels, size, width_units,
    ALIGN: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, BLOCK_D: tl.constexpr,
    GROUP: tl.constexpr, HELD: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    """`_search_levels` by scans; `pairs` stand for the residual.

    row_norms and largest [levels]: half the squares of x's rows and of each codebook's largest code.
    """
    width = width_units * ALIGN
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    inside = row < rows
    tile_size = _depth(width, BLOCK_D) * ROWS
    tiles += tl.program_id(0).to(tl.int64) * tile_size
    pairs += tl.program_id(0).to(tl.int64) * tile_size * 2
    parts = tl.cdiv(size, CODES)
    table_size = parts.to(tl.int64) * CODES * _depth(width, BLOCK_D)
    square = 2 * tl.load(row_norms + row)
    for level in range(levels):
        error = _scan_error(square, 2 * tl.load(largest + level), width)
        code = _nearest_scanned(
            tiles, pairs, tables, code_pairs, half_norms, error, inside, parts, width,
            ROWS, CODES, BLOCK_D, GROUP, HELD, UPCAST,
        )  # fmt: skip
        tl.store(codes + row * levels + level, code, inside)
        tl.debug_barrier()  # every thread has read the residual that is overwritten now
        left = _advance(
            tiles, pairs, residual, quantized, codebooks, row, inside, code, level, levels, width,
            ROWS, BLOCK_D, True,
        )  # fmt: skip
        tl.store(squares + row * levels + level, left, inside)
        tl.debug_barrier()  # other threads wrote the residual that is read next
        square = left.to(tl.float32)
        codebooks += size.to(tl.int64) * width
        tables += table_size
        code_pairs += 2 * table_size
        half_norms += parts * CODES


@triton.jit(do_not_specialize=["rows", "level", "levels", "size", "width_units"])
def _search_split(
    tiles, codebooks, tables, half_norms, keys, done, codes, quantized, residual, squares,
    rows, level, levels, size, width_units,
    ALIGN: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """One level of ROWS rows and CODES codes.

    The program of a tile that counts itself last in `done` [levels, tiles] takes the codes off: all others
    have read the tile and given their keys.
    """
    width = width_units * ALIGN
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    inside = row < rows
    tiles += tl.program_id(0).to(tl.int64) * _depth(width, BLOCK_D) * ROWS
    keys += level.to(tl.int64) * rows
    part = level * tl.num_programs(1) + tl.program_id(1)
    tables += part.to(tl.int64) * _depth(width, BLOCK_D) * CODES
    products = _multiply(tiles, tables, width, ROWS, CODES, BLOCK_D)
    lane = tl.arange(0, CODES)
    scores = tl.load(half_norms + part * CODES + lane)[None, :] - products
    found = tl.min(_keys(scores, (tl.program_id(1) * CODES + lane)[None, :]), axis=1)
    tl.atomic_min(keys + row, found, inside, sem="relaxed")
    tl.debug_barrier()  # every thread of this program has given its keys before the program is counted
    before = tl.atomic_add(done + level * tl.num_programs(0) + tl.program_id(0), 1, sem="acq_rel")
    if before == tl.num_programs(1) - 1:
        code = _code_of(tl.load(keys + row, inside, other=0, volatile=True))
        tl.store(codes + row * levels + level, code, inside)
        book = codebooks + level * size.to(tl.int64) * width
        left = _advance(
            tiles, tiles, residual, quantized, book, row, inside, code, level, levels, width,
            ROWS, BLOCK_D, False,
        )  # fmt: skip
        tl.store(squares + row * levels + level, left, inside)


_TILE = {"ALIGN": ALIGN, "ROWS": ROWS, "BLOCK_D": BLOCK_D}
_PRODUCT = {**_TILE, "CODES": CODES}
_SCAN = {**_PRODUCT, "GROUP": GROUP}


def _options(stages: int, warps: int = WARPS) -> dict[str, int]:
    return {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": FP_FUSION}


def generation() -> int:
    """Returns the major number of the device's compute capability, 8 where kernels are interpreted."""
    return 8 if triton.knobs.runtime.interpret else driver.active.get_current_target().arch // 10


def _scan_constants(generation: int, depth: int) -> dict[str, int]:
    """Returns constants and options of a scan of tiles of a depth."""
    warps, stages = SCANS.get(generation, SCANS[8])
    if depth in HELD.get(generation, ()):
        return {**_SCAN, "HELD": depth, **_options(STAGES_HELD, warps)}
    return {**_SCAN, "HELD": 0, **_options(stages, warps)}


def _at_16_bytes(t: Tensor) -> Tensor:
    """A contiguous tensor that begins where the compiled kernels expect it to."""
    t = t.contiguous()
    return t.clone() if t.data_ptr() % 16 else t


def search(x: Tensor, codebooks: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `csm_kernels.rvq_search`; x [N, D] and codebooks [Q, V, D] are fp32."""
    width = x.shape[1]
    spare = -width % ALIGN
    if spare:
        x, codebooks = (torch.nn.functional.pad(t, (0, spare)) for t in (x, codebooks))
    outputs = allocate(x, codebooks)
    launch(_at_16_bytes(x), _at_16_bytes(codebooks), *outputs)
    codes, quantized, residual, squares = outputs
    if spare:
        quantized, residual = (t[:, :width].contiguous() for t in (quantized, residual))
    if mask is None:
        commitment = squares.sum(0) / max(x.shape[0] * width, 1)
    else:
        commitment = torch.where(mask[:, None], squares, 0.0).sum(0) / (mask.sum() * width).clamp(min=1)
    return codes, quantized, residual, commitment.to(x.dtype)


def allocate(x: Tensor, codebooks: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Memory that `launch` fills: codes [N, Q], quantized [N, D], residual [N, D], squares [N, Q]."""
    shape = x.shape[0], codebooks.shape[0]
    codes = torch.empty(shape, dtype=torch.int64, device=x.device)
    return codes, torch.empty_like(x), torch.empty_like(x), codes.new_empty(shape, dtype=torch.float64)


@launches
def launch(
    x: Tensor,
    codebooks: Tensor,
    codes: Tensor,
    quantized: Tensor,
    residual: Tensor,
    squares: Tensor,
    *,
    kernel: Kernel | None = None,
) -> None:
    """Searches and writes every element of the four outputs (see `allocate`).

    Args:
        x: [N, D] fp32, D a multiple of ALIGN; like all tensors here contiguous and at 16 bytes.
        codebooks: [Q, V, D] fp32.
        codes: [N, Q] int64.
        quantized: [N, D] fp32.
        residual: [N, D] fp32.
        squares: [N, Q] fp64, the square of what each level leaves of each row.
        kernel: Which one. Default: `kernel_for`.
    """
    (rows, width), (levels, size, _) = x.shape, codebooks.shape
    if not rows:
        return
    outputs = codes, quantized, residual, squares
    kernel = kernel or kernel_for(rows, width, x.device)
    sizes = levels, size, width // ALIGN
    tiles, row_norms = _laid_out(x[None], norms=kernel == "scan")
    tables, half_norms = _laid_out(codebooks, norms=True)
    tiles = tiles[0]
    if kernel == "split":
        _launch_split(tiles, codebooks, tables, half_norms, *outputs, sizes)
    elif kernel == "scan":
        largest = half_norms.view(levels, -1)[:, :size].amax(1)
        _search_scanned[grid(len(tiles))](
            tiles, _paired(tiles), row_norms, codebooks, tables, _paired(tables), half_norms, largest,
            *outputs, rows, *sizes, **_scan_constants(generation(), tiles.shape[1]),
            UPCAST=triton.knobs.runtime.interpret,
        )  # fmt: skip
    else:
        _search_levels[grid(len(tiles))](
            tiles, codebooks, tables, half_norms, *outputs, rows, *sizes,
            **_PRODUCT, **_options(STAGES_LEVELS),
        )  # fmt: skip


def kernel_for(rows: int, width: int, device: torch.device) -> Kernel:
    """Returns the kernel that searches this number of rows of this width.

    `split` where rows alone, ROWS a program, leave processors of a GPU idle; `scan` on NVIDIA, whose matrix
    instructions take no fp32, as AMD's do.
    """
    if rows < PROGRAMS * processors(device) * ROWS:
        return "split"
    return "scan" if width > BLOCK_D and torch.version.hip is None else "levels"


def _laid_out(matrices: Tensor, *, norms: bool) -> tuple[Tensor, Tensor]:
    """Tiles [M, tiles, D, ROWS] of matrices [M, N, D], and with `norms` half the squares of all rows."""
    count, size, width = matrices.shape
    parts, depth = triton.cdiv(size, ROWS), triton.cdiv(width, BLOCK_D) * BLOCK_D
    tiles = matrices.new_empty(count, parts, depth, ROWS)
    half_norms = matrices.new_empty(count * parts * ROWS if norms else 0)
    _lay_out[grid(parts, count)](
        matrices, tiles, half_norms, size, width // ALIGN, **_TILE, NORMS=norms, **_options(1)
    )
    return tiles, half_norms


def _paired(tiles: Tensor) -> Tensor:
    """Pairs of bf16 [..., 2, D, ROWS] of tiles [..., D, ROWS]."""
    *shape, depth, rows = tiles.shape
    pairs = tiles.new_empty(*shape, 2, depth, rows, dtype=torch.bfloat16)
    _pair[grid(math.prod(shape))](tiles, pairs, depth * rows, ROWS=ROWS, BLOCK_D=BLOCK_D, **_options(1))
    return pairs


def _launch_split(
    tiles: Tensor,
    codebooks: Tensor,
    tables: Tensor,
    half_norms: Tensor,
    codes: Tensor,
    quantized: Tensor,
    residual: Tensor,
    squares: Tensor,
    sizes: tuple[int, int, int],
) -> None:
    """Launches a level at a time."""
    rows, levels = codes.shape
    keys = torch.full((levels, rows), _NO_KEY.value, dtype=torch.int64, device=codes.device)
    done = codes.new_zeros(levels, len(tiles), dtype=torch.int32)
    for level in range(levels):
        _search_split[grid(len(tiles), tables.shape[1])](
            tiles, codebooks, tables, half_norms, keys, done, codes, quantized, residual, squares,
            rows, level, *sizes, **_PRODUCT, **_options(STAGES_SPLIT),
        )  # fmt: skip


_TYPES = {
    **dict.fromkeys(("source", "tiles", "codebooks", "tables", "half_norms"), "*fp32"),
    **dict.fromkeys(("quantized", "residual", "row_norms", "largest"), "*fp32"),
    **dict.fromkeys(("pairs", "code_pairs"), "*bf16"),
    **dict.fromkeys(("codes", "keys"), "*i64"),
    "done": "*i32",
    "squares": "*fp64",
}


def _shipped(
    name: str,
    kernel: triton.JITFunction,
    constexprs: dict[str, int],
    stages: int,
    warps: int = WARPS,
    generation: int | None = None,
) -> Shipped:
    names = [name for name in kernel.arg_names if name not in constexprs]
    return Shipped(
        name=f"rvq_search/{name}",
        kernel=kernel,
        signature={name: _TYPES.get(name, "i32") for name in names},
        constexprs=constexprs,
        num_warps=warps,
        num_stages=stages,
        generation=generation,
        attrs={(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name in _TYPES},
    )


SHIPPED = (
    _shipped("rows", _lay_out, {**_TILE, "NORMS": False}, 1),
    _shipped("codewords", _lay_out, {**_TILE, "NORMS": True}, 1),
    _shipped("pairs", _pair, {"ROWS": ROWS, "BLOCK_D": BLOCK_D}, 1),
    _shipped("levels", _search_levels, _PRODUCT, STAGES_LEVELS),
    *(
        _shipped(f"scan_{n}", _search_scanned, {**_SCAN, "HELD": 0, "UPCAST": False}, stages, warps, n)
        for n, (warps, stages) in SCANS.items()
    ),
    *(
        _shipped(
            f"scan_{n}_held{depth}",
            _search_scanned,
            {**_SCAN, "HELD": depth, "UPCAST": False},
            STAGES_HELD,
            SCANS[n][0],
            n,
        )
        for n, depths in HELD.items()
        for depth in depths
    ),
    _shipped("split", _search_split, _PRODUCT, STAGES_SPLIT),
)
