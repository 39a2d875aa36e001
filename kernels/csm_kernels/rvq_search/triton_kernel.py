"""rvq_search on a GPU: all levels in one launch for many rows, codes split over programs for few.

What is promised. Scores are fp32 (`input_precision="ieee"`: fused multiply-adds on NVIDIA, fp32 matrix
instructions on AMD, never TF32). Both kernels form a score from the same products, [ROWS, BLOCK_D] x
[BLOCK_D, CODES] added up in the order of D: a row's codes, quantized and residual have the same bits alone,
in any batch, in any order, in either kernel. Of equal scores the lowest index wins: the kernel of all levels
keeps the first of equal ones, the split one compares candidates as one 64-bit integer, score in the upper
half (its bits reordered so that integers compare as floats do), index in the lower. The minimum of integers
does not depend on the order of comparisons, so programs may share it through one atomic. A row that is not
finite gets codes in [0, V).

Nothing of size N x V exists. The residual lives in memory of its own (in the L2 cache), not in registers,
with a barrier between the threads that write it and the level that reads it.

Rows and codewords are first laid out as tiles [D, 64], zeros where there is no row or column. Neighbouring
lanes then read neighbouring words of shared memory, and no read of the inner loop has a mask; with D
innermost 16 lanes met in one bank.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from csm_kernels.device import grid, launches, processors
from csm_kernels.shipped import FP_FUSION, Shipped

ROWS, CODES = 64, 64  # of one product: 32 sums per thread, which leave every target room for its operands
BLOCK_D = 16  # of one step; the least that Triton's products take on every target (3.6 refuses 8)
ALIGN = 4  # a row is whole groups of 16 bytes; other widths are padded with zeros, which change no sum
WARPS = 4
# Two stages in _search_levels take 255 registers a thread: one program a processor in place of three.
STAGES_LEVELS, STAGES_SPLIT = 1, 2
# Programs that a processor needs to hide its waits: with fewer rows the codes are split too.
PROGRAMS = 2

_NO_KEY: tl.constexpr = tl.constexpr((1 << 63) - 1)


@triton.jit
def _depth(width, BLOCK_D: tl.constexpr):
    """Columns of a tile: whole blocks."""
    return tl.cdiv(width, BLOCK_D) * BLOCK_D


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
    tile, residual, quantized, book, row, inside, code, level, levels, width,
    ROWS: tl.constexpr, BLOCK_D: tl.constexpr,
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
        sums = tl.load(quantized + place + d, kept & (level > 0), other=0.0) + c
        tl.store(quantized + place + d, sums, kept)
        total += tl.sum(r.to(tl.float64) * r.to(tl.float64), axis=1)
    return total


@triton.jit
def _nearest(
    tile, tables, half_norms, parts, width, ROWS: tl.constexpr, CODES: tl.constexpr, BLOCK_D: tl.constexpr
):
    """The code of each row of a tile: of all codes of one codebook the first with the least score.

    Every lane keeps the best score of its own columns, the first of equal ones; the lanes meet once a level.
    Scores are never -0, so that equal floats have equal bits, as `_keys` compares them.
    """
    best = tl.full([ROWS, CODES], float("inf"), tl.float32)
    origin = tl.zeros([ROWS, CODES], tl.int32)
    for part in range(parts):
        products = _multiply(tile, tables, width, ROWS, CODES, BLOCK_D)
        scores = tl.load(half_norms + part * CODES + tl.arange(0, CODES))[None, :] - products
        less = scores < best  # false for what is no number
        best = tl.where(less, scores, best)
        origin = tl.where(less, part * CODES, origin)
        tables += _depth(width, BLOCK_D) * CODES
    least = tl.min(best, axis=1)
    codes = origin + tl.arange(0, CODES)[None, :]
    return tl.min(tl.where(best == least[:, None], codes, 0x7FFFFFFF), axis=1).to(tl.int64)


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
            tiles, residual, quantized, codebooks, row, inside, code, level, levels, width, ROWS, BLOCK_D
        )
        tl.store(squares + row * levels + level, left, inside)
        tl.debug_barrier()  # other threads wrote the residual that is read next
        codebooks += size.to(tl.int64) * width
        tables += table_size
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
            tiles, residual, quantized, book, row, inside, code, level, levels, width, ROWS, BLOCK_D
        )
        tl.store(squares + row * levels + level, left, inside)


_TILE = {"ALIGN": ALIGN, "ROWS": ROWS, "BLOCK_D": BLOCK_D}
_PRODUCT = {**_TILE, "CODES": CODES}


def _options(stages: int) -> dict[str, int]:
    return {"num_warps": WARPS, "num_stages": stages, "enable_fp_fusion": FP_FUSION}


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
    split: bool | None = None,
) -> None:
    """Searches and writes every element of the four outputs (see `allocate`).

    Args:
        x: [N, D] fp32, D a multiple of ALIGN; like all tensors here contiguous and at 16 bytes.
        codebooks: [Q, V, D] fp32.
        codes: [N, Q] int64.
        quantized: [N, D] fp32.
        residual: [N, D] fp32.
        squares: [N, Q] fp64, the square of what each level leaves of each row.
        split: Split the codes over programs too. Default: `few_rows`.
    """
    (rows, width), (levels, size, _) = x.shape, codebooks.shape
    if not rows:
        return
    tiles, (tables, half_norms) = _laid_out(x[None], False)[0], _laid_out(codebooks, True)
    sizes = levels, size, width // ALIGN
    if few_rows(rows, x.device) if split is None else split:
        _launch_split(tiles, codebooks, tables, half_norms, codes, quantized, residual, squares, sizes)
    else:
        _search_levels[grid(tiles.shape[1])](
            tiles, codebooks, tables, half_norms, codes, quantized, residual, squares, rows, *sizes,
            **_PRODUCT, **_options(STAGES_LEVELS),
        )  # fmt: skip


def few_rows(rows: int, device: torch.device) -> bool:
    """Returns whether rows alone, ROWS a program, leave processors of a GPU idle."""
    return rows < PROGRAMS * processors(device) * ROWS


def _laid_out(matrices: Tensor, norms: bool) -> tuple[Tensor, Tensor]:
    """Tiles [M, tiles, D, ROWS] of matrices [M, N, D], and with `norms` half the squares of all rows."""
    count, size, width = matrices.shape
    parts, depth = triton.cdiv(size, ROWS), triton.cdiv(width, BLOCK_D) * BLOCK_D
    tiles = matrices.new_empty(count, parts, depth, ROWS)
    half_norms = matrices.new_empty(count * parts * ROWS if norms else 0)
    _lay_out[grid(parts, count)](
        matrices, tiles, half_norms, size, width // ALIGN, **_TILE, NORMS=norms, **_options(1)
    )
    return tiles, half_norms


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
    done = codes.new_zeros(levels, tiles.shape[1], dtype=torch.int32)
    for level in range(levels):
        _search_split[grid(tiles.shape[1], tables.shape[1])](
            tiles, codebooks, tables, half_norms, keys, done, codes, quantized, residual, squares,
            rows, level, *sizes, **_PRODUCT, **_options(STAGES_SPLIT),
        )  # fmt: skip


_TYPES = {
    **dict.fromkeys(("source", "tiles", "codebooks", "tables", "half_norms"), "*fp32"),
    **dict.fromkeys(("quantized", "residual"), "*fp32"),
    **dict.fromkeys(("codes", "keys"), "*i64"),
    "done": "*i32",
    "squares": "*fp64",
}


def _shipped(name: str, kernel: triton.JITFunction, constexprs: dict[str, int], stages: int) -> Shipped:
    names = [name for name in kernel.arg_names if name not in constexprs]
    return Shipped(
        name=f"rvq_search/{name}",
        kernel=kernel,
        signature={name: _TYPES.get(name, "i32") for name in names},
        constexprs=constexprs,
        num_warps=WARPS,
        num_stages=stages,
        attrs={(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name in _TYPES},
    )


SHIPPED = (
    _shipped("rows", _lay_out, {**_TILE, "NORMS": False}, 1),
    _shipped("codewords", _lay_out, {**_TILE, "NORMS": True}, 1),
    _shipped("levels", _search_levels, _PRODUCT, STAGES_LEVELS),
    _shipped("split", _search_split, _PRODUCT, STAGES_SPLIT),
)
