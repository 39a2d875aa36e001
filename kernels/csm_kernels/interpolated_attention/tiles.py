"""interpolated_attention: the shapes its GPU kernels are compiled and launched in."""

from __future__ import annotations

from typing import Any

import torch

from csm_kernels.shipped import FP_FUSION, Shipped

ALIGN = 8  # a row is whole groups of 16 bytes in half precision; other widths are padded with zeros
WIDTHS = (32, 64, 128)  # of heads; widths between them are masked
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}
TABLE = 128  # runs that one program places
TABLE_OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": FP_FUSION}

# By kernel and dtype, for each of WIDTHS: (rows, runs, chunk, warps, stages), found by compiling: large tiles
# that spill no register on sm_80, sm_90, sm_100 and gfx942. None was timed. `chunk` columns are multiplied at
# a time: fp32 products on NVIDIA hold that many operands of each row in registers. The two gradient kernels
# multiply equal chunks of fp32: they must round the same logit alike.
_TILES = {
    ("attend", "fp32"): ((32, 16, 16, 4, 1), (32, 16, 16, 4, 1), (16, 16, 32, 4, 1)),
    ("attend", "bf16"): ((64, 16, 32, 4, 2), (64, 16, 64, 4, 2), (32, 32, 128, 4, 1)),
    ("attend", "fp16"): ((64, 16, 32, 4, 2), (64, 16, 64, 4, 1), (32, 32, 128, 4, 1)),
    ("query_gradients", "fp32"): ((32, 16, 32, 8, 1), (32, 16, 16, 8, 1), (32, 16, 16, 8, 1)),
    ("query_gradients", "bf16"): ((32, 16, 32, 4, 1), (64, 16, 64, 4, 1), (32, 16, 128, 4, 1)),
    ("query_gradients", "fp16"): ((32, 16, 32, 4, 1), (32, 16, 64, 4, 1), (32, 16, 128, 4, 1)),
    ("key_gradients", "fp32"): ((16, 16, 32, 2, 1), (16, 16, 16, 4, 1), (16, 16, 16, 4, 1)),
    ("key_gradients", "bf16"): ((32, 16, 32, 4, 1), (32, 16, 64, 4, 1), (16, 16, 128, 4, 1)),
    ("key_gradients", "fp16"): ((16, 16, 32, 4, 1), (16, 16, 64, 4, 1), (16, 16, 128, 4, 1)),
}


def _padded(width: int) -> int:
    return next((padded for padded in WIDTHS if width <= padded), 0)


def supports(dtype: torch.dtype, width: int) -> bool:
    """Whether there is a kernel for heads of this kind and width."""
    return dtype in DTYPES and _padded(width) > 0


def constants_of(kernel: str, short: str, width: int, windowed: bool, upcast: bool) -> dict[str, Any]:
    """The constants that a kernel is compiled with.

    Args:
        kernel: "attend", "query_gradients" or "key_gradients".
        short: One of DTYPES' values.
        width: Of a head.
        windowed: Whether queries see a window.
        upcast: Products of fp32 numbers throughout, for the interpreter, whose bf16 products are wrong.
    """
    padded = _padded(width)
    rows, runs, chunk, _, _ = _TILES[kernel, short][WIDTHS.index(padded)]
    constants = {"ALIGN": ALIGN, "WINDOWED": windowed, "ROWS": rows, "RUNS": runs, "PADDED": padded}
    constants |= {"CHUNK": chunk, "UPCAST": upcast}
    if kernel == "key_gradients":  # which keeps four sums of each column: those of all fp32 columns spill
        constants["COLUMNS"] = 32 if short == "fp32" else padded
    return constants


def options_of(kernel: str, short: str, width: int) -> dict[str, Any]:
    """The options that a kernel is compiled with."""
    *_, warps, stages = _TILES[kernel, short][WIDTHS.index(_padded(width))]
    return {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": FP_FUSION}


_TYPES = {
    **dict.fromkeys(("bounds_q", "bounds_k", "lengths", "offsets"), "*i64"),
    **dict.fromkeys(("begins", "lefts"), "*i32"),
    **dict.fromkeys(("shares", "lse", "delta", "inverses"), "*fp32"),
    **dict.fromkeys(("sequences", "heads", "width_units", "window"), "i32"),
    "scale": "fp32",
}


def shipped(
    name: str, kernel: Any, short: str, constants: dict[str, Any], options: dict[str, Any]
) -> Shipped:
    """A kernel with its constants and options, as csm_kernels.aot reads it; `short` is the tensors' dtype."""
    names = [name for name in kernel.arg_names if name not in constants]
    types = {name: _TYPES.get(name, f"*{short}") for name in names}
    return Shipped(
        name=f"interpolated_attention/{name}",
        kernel=kernel,
        signature=types,
        constexprs=constants,
        num_warps=options["num_warps"],
        num_stages=options["num_stages"],
        attrs={(n,): [["tt.divisibility", 16]] for n, name in enumerate(names) if types[name][0] == "*"},
    )
