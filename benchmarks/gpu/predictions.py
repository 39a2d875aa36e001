"""docs/GPU.md's tables: what each kernel must take on an H100, by arithmetic, before anything is measured.

    python benchmarks/gpu/predictions.py           writes the page's tables and predictions.json

The compiled loops come from compiled_loops.json: after a change of kernels run `compiled_loops.py` first.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from compiled_loops import TABLE
from shapes import ATTENTIONS, HEAD, SEARCHES, UPDATES, AttentionShape, SearchShape

PAGE = Path(__file__).resolve().parents[2] / "docs/GPU.md"
PREDICTED = Path(__file__).with_name("predictions.json")
LOOPS = json.loads(TABLE.read_text())["kernels"]

# H100 SXM: processors, clock under load (Hz), warp instructions a clock and processor, lanes of a warp.
SMS, CLOCK, ISSUE, LANES = 132, 1.755e9, 4, 32
DRAM, L2 = 3.35e12, 5.5e12  # bytes a second; of the L2 what public micro-benchmarks reach
ATOMICS = 3e11  # integer additions to 64 bits a second in the L2: assumed, the least certain figure here
GRAPH_LAUNCH = 2e-6  # seconds from one small kernel of a graph to the next
# Share of the issue slots that such loops reach: register-tiled products, and loops with exponentials.
PRODUCTS, EXPONENTIALS = 0.8, 0.55
# Multiply-adds of bf16 a clock and processor, and the share that tiles of 64 x 64 reach.
MATRIX, MATRICES = 2048, 0.5
ROWS, CODES, DEPTH = 64, 64, 16  # of the search's tile
FEW_TILES = 2  # tiles of rows a processor below which the codes are split over programs
GROUPS_AGAIN = 1.05  # of a tile and level, random codebooks of D 128 (scored_again.py)


@dataclass(frozen=True)
class Bound:
    """One lower bound of a kernel's time, and the share of it that is reached."""

    name: str
    seconds: float
    reached: float = 0.8


def longest(bounds: list[Bound]) -> Bound:
    return max(bounds, key=lambda bound: bound.seconds / bound.reached)


def loops(kernel: str) -> list[dict[str, int]]:
    return LOOPS[kernel]["loops"]


def products_loop(kernel: str) -> dict[str, int]:
    """Returns the loop with the most multiplications."""
    return max(loops(kernel), key=lambda loop: loop["fused"] + 64 * loop["matrix"])


def waves(programs: int, per_program: float) -> float:
    """Returns the seconds of the processor that runs most of the programs."""
    return math.ceil(programs / SMS) * per_program / (ISSUE * CLOCK)


# ---- bounds ----


def search_bounds(shape: SearchShape) -> list[Bound]:
    n, d, v, q = shape
    tile_steps, steps = math.ceil(v / CODES), math.ceil(d / DEPTH)
    split, scan = n < FEW_TILES * SMS * ROWS, d > DEPTH
    if scan and not split:
        return scan_bounds(shape)
    kernel = "rvq_search/split" if split else "rvq_search/levels"
    body = products_loop(kernel)["instructions"] * LOOPS[kernel]["warps"]
    others = [loop for loop in loops(kernel) if loop is not products_loop(kernel) and loop["depth"] > 1]
    after = max((loop["instructions"] for loop in others if not loop["fused"]), default=0)
    per_tile = steps * body + after * LOOPS[kernel]["warps"]
    row_tiles = math.ceil(n / ROWS)
    if split:
        levels = q * (waves(row_tiles * tile_steps, per_tile) + GRAPH_LAUNCH)
        issue = Bound("issue slots and launches", levels, PRODUCTS)
    else:
        issue = Bound("issue slots", waves(row_tiles, q * tile_steps * per_tile), PRODUCTS)
    codebooks = 4.0 * q * v * d
    traffic = row_tiles * codebooks + 4.0 * n * d * q * tile_steps
    return [
        Bound("fp32 products", n * v * d * q / (SMS * ISSUE * LANES * CLOCK), PRODUCTS),
        issue,
        Bound("L2", traffic / L2),
        Bound("DRAM", search_bytes(shape) / DRAM),
    ]


def scan_bounds(shape: SearchShape) -> list[Bound]:
    """Bounds of `scan`: its loops as compiled, and three products of bf16 on the matrix units."""
    n, d, v, q = shape
    parts, steps, row_tiles = math.ceil(v / CODES), math.ceil(d / DEPTH), math.ceil(n / ROWS)
    held = d in (64, 128)
    kernel = f"rvq_search/scan_9_held{d}" if held else "rvq_search/scan_9"
    found = loops(kernel)
    # Where rows are held the products stand in the loop over parts.
    products = sum(loop["instructions"] for loop in found if loop["matrix"] and loop["depth"] == 3)
    compared = max(loop["instructions"] for loop in found if loop["depth"] == 2 and not loop["fused"])
    again = max((loop for loop in found if loop["fused"]), key=lambda loop: loop["fused"])
    # A group's columns are 16 codes of 64 rows on 128 threads: 8 sums a thread and channel.
    group = again["instructions"] / (again["fused"] / 8) * d
    level = max(loop["instructions"] for loop in found if loop["depth"] == 1)
    per_level = parts * (steps * products + compared) + GROUPS_AGAIN * group + level
    issue = waves(row_tiles, q * per_level * LOOPS[kernel]["warps"])
    traffic = row_tiles * 4.0 * q * v * d + 4.0 * n * d * q * (1 if held else parts)
    return [
        Bound("issue slots", issue, PRODUCTS),
        Bound("matrix products", 3 * n * v * d * q / (SMS * MATRIX * CLOCK), MATRICES),
        Bound("L2", traffic / L2),
        Bound("DRAM", search_bytes(shape) / DRAM),
    ]


def search_bytes(shape: SearchShape) -> float:
    n, d, v, q = shape
    return 12.0 * n * d + 16.0 * n * q + 4.0 * q * v * d


def update_bounds(shape: SearchShape) -> list[Bound]:
    n, d, v, q = shape
    return [
        Bound("atomics", n * d * q / ATOMICS),
        Bound("L2", 4.0 * n * d * q / L2),  # a codeword for each row and level
        Bound("DRAM", update_bytes(shape) / DRAM),
    ]


def update_bytes(shape: SearchShape) -> float:
    n, d, v, q = shape
    return 4.0 * n * d + 8.0 * n * q + 4.0 * q * v * (4 * d + 4)


def attended(shape: AttentionShape) -> int:
    """Returns the pairs of a query and a stretch between two keys that a window leaves."""
    seen = shape.keys + 1
    if shape.window is not None:
        seen = min(seen, (2 * shape.window + 1) // shape.ratio + 2)
    return shape.batch * shape.heads * shape.length * seen


def attention_bounds(shape: AttentionShape, kind: str, way: str) -> list[Bound]:
    short = {"bfloat16": "bf16", "float32": "fp32"}[kind]
    parts = ["attend"] + ["query_gradients", "key_gradients"] * (way == "both")
    seconds = 0.0
    for part in parts:
        kernel = f"interpolated_attention/{part}_{short}_64" + "_window" * (shape.window is not None)
        constants = LOOPS[kernel]["constants"]
        outer = sum(loop["instructions"] for loop in loops(kernel) if loop["fused"] + loop["matrix"] > 0)
        per_pair = outer * LOOPS[kernel]["warps"] / (constants["ROWS"] * constants["RUNS"])
        seconds += attended(shape) * per_pair / (SMS * ISSUE * CLOCK)
    return [
        Bound("issue slots", seconds, EXPONENTIALS),
        Bound("DRAM", attention_bytes(shape, kind, way) / DRAM),
    ]


def attention_bytes(shape: AttentionShape, kind: str, way: str) -> float:
    size = {"bfloat16": 2, "float32": 4}[kind] * shape.batch * shape.heads * HEAD
    return size * (2 * shape.length + 2 * shape.keys) * (1 if way == "forward" else 3)


# ---- tables ----


@dataclass(frozen=True)
class Prediction:
    """A row of the table, which a row of kernel_times.py measures under the same name."""

    name: str
    work: float
    moved: float
    bounds: list[Bound]

    @property
    def ms(self) -> float:
        bound = longest(self.bounds)
        return 1e3 * bound.seconds / bound.reached


def predictions() -> list[Prediction]:
    found = []
    for shape in SEARCHES:
        work = 2.0 * shape.rows * shape.width * shape.size * shape.levels
        found.append(Prediction(f"rvq_search {shape.title}", work, search_bytes(shape), search_bounds(shape)))
    for shape in UPDATES:
        work = 1.0 * shape.rows * shape.width * shape.levels
        found.append(Prediction(f"ema_update {shape.title}", work, update_bytes(shape), update_bounds(shape)))
    for kind in ("bfloat16", "float32"):
        for pair in ATTENTIONS:
            for way, products in (("forward", 3), ("both", 10)):
                work = 2.0 * products * attended(pair) * HEAD
                bounds = attention_bounds(pair, kind, way)
                moved = attention_bytes(pair, kind, way)
                found.append(Prediction(f"attention {way} {pair.title} {kind}", work, moved, bounds))
    return found


def predictions_table() -> str:
    lines = [
        "| call | GFLOP | MB | bound | floor, ms | predicted, ms | refuted outside, ms |",
        "|---" * 7 + "|",
    ]
    for row in predictions():
        bound = longest(row.bounds)
        floor = 1e3 * bound.seconds
        cells = [row.name, f"{row.work / 1e9:.3g}", f"{row.moved / 1e6:.3g}", bound.name]
        cells += [f"{floor:.3g}", f"{row.ms:.3g}", f"{floor:.3g} to {2 * row.ms:.3g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def loops_table() -> str:
    kinds = ["instructions", "fused", "matrix", "shared", "special", "barriers"]
    lines = [f"| kernel | warps | {' | '.join(kinds)} |", "|---" * (2 + len(kinds)) + "|"]
    for kernel, found in LOOPS.items():
        if found["loops"] and not re.search(r"_(fp16|32|128)(_|$)", kernel):
            loop = products_loop(kernel)
            lines.append(f"| {kernel} | {found['warps']} | {' | '.join(str(loop[k]) for k in kinds)} |")
    return "\n".join(lines)


def generation_table() -> str:
    from generation_roofline import floors_table, frame_traffic

    from csm.network.presets import csm_1b

    sizes = frame_traffic(csm_1b(), context=2048)
    parts = {
        "backbone and head of code 0": sizes.backbone,
        "depth decoder, one pass": sizes.depth_layers,
        f"depth decoder, {sizes.depth_passes} passes": sizes.depth_layers * sizes.depth_passes,
        "heads of codes 1 to 31": sizes.depth_heads,
        "keys and values of 2,048 rows": sizes.context,
        "all, depth decoder in a cache": sizes.once,
        "all, depth decoder from memory": sizes.streamed,
    }
    lines = ["| read for a frame of csm-1b, bfloat16 | MB |", "|---|---|"]
    lines += [f"| {name} | {size / 1e6:,.0f} |" for name, size in parts.items()]
    return "\n".join(lines) + "\n\n" + floors_table(csm_1b())


TABLES: dict[str, Callable[[], str]] = {
    "loops": loops_table,
    "predictions": predictions_table,
    "generation": generation_table,
}


def filled(page: str, tables: dict[str, Callable[[], str]]) -> str:
    """Returns the page with each table between its two marks replaced."""
    for name, table in tables.items():
        begin, end = f"<!-- table: {name} -->\n", "<!-- end -->"
        before, found, rest = page.partition(begin)
        assert found, f"docs/GPU.md: expected a place for the table {name}"
        page = f"{before}{begin}\n{table()}\n\n{end}{rest.partition(end)[2]}"
    return page


def main() -> None:
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), TABLES), encoding="utf-8")
    found = {row.name: float(f"{row.ms:.3g}") for row in predictions()}
    PREDICTED.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
