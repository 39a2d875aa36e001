"""rvq_search on a GPU: all levels in one launch for many rows, codes split over programs for few.

What is promised. Scores are fp32 (`input_precision="ieee"`: fused multiply-adds on NVIDIA, fp32 matrix
instructions on AMD, never TF32). Both kernels form a score from the same products, [ROWS, BLOCK_D] x
[BLOCK_D, CODES] added up in the order of D, and this shape is a function of D alone: a row's codes,
quantized and residual have the same bits alone, in any batch, in any order, in either kernel. Of equal
scores the lowest index wins: candidates are compared as one 64-bit integer, score in the upper half (its
bits reordered so that integers compare as floats do), index in the lower. The minimum of integers does not
depend on the order of comparisons, so programs may share it through one atomic. A row that is not finite
gets codes in [0, V).

Nothing of size N x V exists. The residual tile lives in the output buffer (in the L2 cache), not in
registers, with a barrier between the threads that write it and the level that reads it.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from csm_kernels.shipped import FP_FUSION, Shipped

ROWS, CODES = 64, 64  # of one product: 32 sums per thread, which leave every target room for its operands
WARPS, STAGES = 4, 2
# Columns of one elementwise step. ptxas aims at 168 and 128 registers a thread and, just above, spills a few.
WIDE_LEVELS, WIDE_SPLIT = 16, 32
FILLED = 4096  # fewer rows leave a GPU's processors idle at ROWS per program: split the codes too
ALIGN = 4  # a row is whole groups of 16 bytes; other widths are padded with zeros, which change no sum

_NO_KEY: tl.constexpr = tl.constexpr((1 << 63) - 1)


@triton.jit(do_not_specialize=["count", "width_units"])
def _half_norms(
    codebooks, half_norms, count, width_units, ALIGN: tl.constexpr, ROWS: tl.constexpr, WIDE: tl.constexpr
):
    """0.5 |c|^2 of `count` codes, columns in one order."""
    width = width_units * ALIGN
    codes = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = codes < count
    place = codes.to(tl.int64)[:, None] * width
    total = tl.zeros([ROWS], tl.float32)
    for start in range(0, width, WIDE):
        d = (start + tl.arange(0, WIDE))[None, :]
        c = tl.load(codebooks + place + d, inside[:, None] & (d < width), other=0.0)
        total += tl.sum(c * c, axis=1)
    tl.store(half_norms + codes, 0.5 * total, inside)


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
def _nearest(
    before, taken, table, half_norms, place, inside, coded, code, first, size, width,
    ROWS: tl.constexpr, CODES: tl.constexpr, BLOCK_D: tl.constexpr, SUBTRACT: tl.constexpr,
):  # fmt: skip
    """The smallest key of [ROWS] rows among the codes first .. first + CODES.

    The rows are `before`, or with SUBTRACT, where `coded`, `before` less their code in the codebook `taken`.
    """
    codes = first + tl.arange(0, CODES)
    known = codes < size
    products = tl.zeros([ROWS, CODES], tl.float32)
    for start in range(0, width, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        kept = inside[:, None] & (d < width)[None, :]
        r = tl.load(before + place + d[None, :], kept, other=0.0)
        if SUBTRACT:
            r -= tl.load(taken + code[:, None] * width + d[None, :], kept & coded[:, None], other=0.0)
        c = tl.load(
            table + codes.to(tl.int64)[None, :] * width + d[:, None],
            known[None, :] & (d < width)[:, None],
            other=0.0,
        )
        products = tl.dot(r, c, products, input_precision="ieee")
    norms = tl.load(half_norms + codes, known, other=float("inf"))
    return tl.min(_keys(norms[None, :] - products, codes[None, :]), axis=1)


@triton.jit
def _advance(
    before, after, quantized, taken, place, inside, code, started, width,
    ROWS: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """after = before - code, quantized += code; gives the square of what is left of each row."""
    total = tl.zeros([ROWS], tl.float64)
    for start in range(0, width, WIDE):
        d = (start + tl.arange(0, WIDE))[None, :]
        kept = inside[:, None] & (d < width)
        c = tl.load(taken + code[:, None] * width + d, kept, other=0.0)
        r = tl.load(before + place + d, kept, other=0.0) - c
        tl.store(after + place + d, r, kept)
        tl.store(quantized + place + d, tl.load(quantized + place + d, kept & started, other=0.0) + c, kept)
        total += tl.sum(r.to(tl.float64) * r.to(tl.float64), axis=1)
    return total


@triton.jit(do_not_specialize=["rows", "levels", "size", "width_units"])
def _search_levels(
    x, codebooks, half_norms, codes, quantized, residual, squares, rows, levels, size, width_units,
    ALIGN: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, BLOCK_D: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """All levels of ROWS rows."""
    width = width_units * ALIGN  # so the compiler sees that rows are whole groups of 16 bytes
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    inside = row < rows
    place = row[:, None] * width
    for start in range(0, width, WIDE):
        d = (start + tl.arange(0, WIDE))[None, :]
        kept = inside[:, None] & (d < width)
        tl.store(residual + place + d, tl.load(x + place + d, kept, other=0.0), kept)
    table, norms = codebooks, half_norms
    for level in range(levels):
        tl.debug_barrier()  # other threads wrote the residual that is read now
        best = tl.full([ROWS], _NO_KEY, tl.int64)
        for first in range(0, size, CODES):
            found = _nearest(
                residual, table, table, norms, place, inside, inside, row, first, size, width,
                ROWS, CODES, BLOCK_D, False,
            )  # fmt: skip
            best = tl.minimum(best, found)
        code = _code_of(best)
        tl.store(codes + row * levels + level, code, inside)
        tl.debug_barrier()  # every thread has read the residual that is overwritten now
        left = _advance(
            residual, residual, quantized, table, place, inside, code, level > 0, width, ROWS, WIDE
        )
        tl.store(squares + row * levels + level, left, inside)
        table += size.to(tl.int64) * width
        norms += size


@triton.jit(do_not_specialize=["rows", "level", "levels", "size", "width_units"])
def _search_split(
    before, after, codebooks, half_norms, keys, codes, quantized, squares,
    rows, level, levels, size, width_units,
    ALIGN: tl.constexpr, ROWS: tl.constexpr, CODES: tl.constexpr, BLOCK_D: tl.constexpr, WIDE: tl.constexpr,
):  # fmt: skip
    """One level of ROWS rows and CODES codes; launched once more, with level = levels, to finish.

    `before` is the residual before level - 1, whose code every program takes off again while it reads: one
    launch a level, because only the programs of the first codes write what is left (to `after`, which no
    program of this launch reads).
    """
    width = width_units * ALIGN
    table_size = size.to(tl.int64) * width
    row = (tl.program_id(0) * ROWS + tl.arange(0, ROWS)).to(tl.int64)
    inside = row < rows
    place = row[:, None] * width
    started = level > 0
    last = tl.maximum(level - 1, 0)
    taken = codebooks + last * table_size
    code = _code_of(tl.load(keys + last.to(tl.int64) * rows + row, inside & started, other=0))
    if level < levels:
        found = _nearest(
            before, taken, codebooks + level * table_size, half_norms + level * size, place, inside,
            inside & started, code, tl.program_id(1) * CODES, size, width, ROWS, CODES, BLOCK_D, True,
        )  # fmt: skip
        tl.atomic_min(keys + level.to(tl.int64) * rows + row, found, inside, sem="relaxed")
    if started & (tl.program_id(1) == 0):
        tl.store(codes + row * levels + last, code, inside)
        left = _advance(before, after, quantized, taken, place, inside, code, level > 1, width, ROWS, WIDE)
        tl.store(squares + row * levels + last, left, inside)


def _tile(width: int, wide: int) -> dict[str, int]:
    """The constants of both kernels for rows of `width`; only WIDE, which reaches no code, differs."""
    return {"ALIGN": ALIGN, "ROWS": ROWS, "CODES": CODES, "BLOCK_D": 8 if width <= 8 else 16, "WIDE": wide}


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
        split: Split the codes over programs too. Default: where the rows alone do not fill a GPU.
    """
    (rows, width), (levels, size, _) = x.shape, codebooks.shape
    if not rows:
        return
    half_norms = x.new_empty(levels * size)
    _half_norms[(triton.cdiv(levels * size, ROWS),)](
        codebooks, half_norms, levels * size, width // ALIGN, **_NORMS, **_OPTIONS
    )
    tiles = triton.cdiv(rows, ROWS)
    sizes = levels, size, width // ALIGN
    if not (rows < FILLED if split is None else split):
        _search_levels[(tiles,)](
            x, codebooks, half_norms, codes, quantized, residual, squares, rows, *sizes,
            **_tile(width, WIDE_LEVELS), **_OPTIONS,
        )  # fmt: skip
        return
    keys = torch.full((levels, rows), _NO_KEY.value, dtype=torch.int64, device=x.device)
    # The residual goes to and fro between two buffers and ends in the output.
    buffers = residual, torch.empty_like(residual)
    before = x
    for level in range(levels + 1):
        after = buffers[(levels - level) % 2]
        grid = tiles, triton.cdiv(size, CODES) if level < levels else 1
        _search_split[grid](
            before, after, codebooks, half_norms, keys, codes, quantized, squares, rows, level, *sizes,
            **_tile(width, WIDE_SPLIT), **_OPTIONS,
        )  # fmt: skip
        before = after if level else x


_NORMS = {"ALIGN": ALIGN, "ROWS": ROWS, "WIDE": WIDE_SPLIT}
_OPTIONS = {"num_warps": WARPS, "num_stages": STAGES, "enable_fp_fusion": FP_FUSION}
_TYPES = {
    **dict.fromkeys(("x", "before", "after", "codebooks", "half_norms", "quantized", "residual"), "*fp32"),
    **dict.fromkeys(("codes", "keys"), "*i64"),
    "squares": "*fp64",
}


def _shipped(name: str, kernel: triton.JITFunction, constexprs: dict[str, int]) -> Shipped:
    names = [name for name in kernel.arg_names if name not in constexprs]
    return Shipped(
        name=f"rvq_search/{name}",
        kernel=kernel,
        signature={name: _TYPES.get(name, "i32") for name in names},
        constexprs=constexprs,
        num_warps=WARPS,
        num_stages=STAGES,
        attrs={(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name in _TYPES},
    )


SHIPPED = (
    _shipped("half_norms", _half_norms, _NORMS),
    *(_shipped(f"levels_d{d}", _search_levels, _tile(d, WIDE_LEVELS)) for d in (8, 16)),
    *(_shipped(f"split_d{d}", _search_split, _tile(d, WIDE_SPLIT)) for d in (8, 16)),
)
