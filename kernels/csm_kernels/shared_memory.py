"""Counts what the inner loop of a compiled kernel takes from shared memory, from its PTX.

A request of a warp takes as many cycles (wavefronts) as the most distinct 4-byte words that one of the 32
banks holds of it; an SM serves one wavefront a cycle beside four fused multiply-adds of a warp. Which words a
request touches follows from the numbers of its threads (`ptx.evaluated`). Where a loop moves an address on,
all threads move alike, which changes no conflict. ptxas keeps these addresses and joins reads of neighbouring
words. The count is a least one: that lanes of a wide request share a word is taken to cost nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from csm_kernels.ptx import Instruction, Lanes, Registers, evaluated, loops_of, parsed, value_of

BANKS, WORD, WARP = 32, 4, 32


@dataclass(frozen=True, kw_only=True)
class InnerLoop:
    """The loop with the most multiplications, without the loops inside it; sums over a program's warps.

    Attributes:
        fused: Fused multiply-adds of fp32 that warps issue.
        matrix: Matrix instructions that warps issue.
        wavefronts: Cycles of shared memory.
        conflicts: Those of them that a conflict of banks adds.
    """

    fused: int
    matrix: int
    wavefronts: int
    conflicts: int


_SHARED = re.compile(r"(?:ld|st)(?:\.volatile)?\.shared(?:::cta)?(?:\.v(\d))?\.[bfus](\d+)$")
_MATRIX = re.compile(r"(?:ld|st)matrix\.sync\.aligned\.m8n8\.x(\d)(?:\.trans)?\.shared")
_COPY = re.compile(r"cp\.async\.c[ag]\.shared\.global")
_PRODUCT = re.compile(r"(?:wg)?mma\.|tcgen05\.mma\.|wmma\.mma")


def inner_loop(ptx: str) -> InnerLoop:
    """Reads one kernel. A request whose address does not follow from the threads' numbers is an error."""
    threads = re.search(r"\.reqntid (\d+)", ptx)
    if threads is None:
        raise RuntimeError("PTX: expected .reqntid in its head")
    program, labels = parsed(ptx)
    chosen = _hottest(program, loops_of(program, labels))
    requests = _requests(program, chosen, int(threads[1]))
    body = [program[place] for place in chosen]
    warps = int(threads[1]) // WARP
    wavefronts, least = (sum(column) for column in zip(*requests, strict=True)) if requests else (0, 0)
    return InnerLoop(
        fused=warps * sum(map(_fused, body)),
        matrix=warps * sum(bool(_PRODUCT.match(each.name)) for each in body),
        wavefronts=wavefronts,
        conflicts=wavefronts - least,
    )


def _hottest(program: list[Instruction], loops: list[range]) -> list[int]:
    """The instructions of the loop with the most multiplications, without those of loops inside it."""
    bodies = []
    for loop in loops:
        inner = [other for other in loops if other != loop and set(other) <= set(loop)]
        bodies.append([place for place in loop if not any(place in other for other in inner)])
    weights = [
        sum(_fused(program[place]) + 64 * bool(_PRODUCT.match(program[place].name)) for place in body)
        for body in bodies
    ]
    return bodies[weights.index(max(weights))]


def _fused(instruction: Instruction) -> int:
    if not instruction.name.startswith("fma.rn") or ".f64" in instruction.name:
        return 0
    return 2 if instruction.name.endswith("x2") else 1


def _requests(program: list[Instruction], wanted: list[int], threads: int) -> list[tuple[int, int]]:
    """Wavefronts of the wanted requests of all warps, and the least that they could take."""
    registers = evaluated(program, threads)
    counts: list[tuple[int, int]] = []
    for each in _joined([program[place] for place in wanted]):
        if (shape := _shape(each)) is None:
            continue
        address = _address(each, registers, threads)
        if address is None:
            raise RuntimeError(
                f"PTX: the address of {each.name} {each.operands} does not follow from threads"
            )
        counts += _of_warps(address, _active(each.guard, registers, threads), *shape)
    return counts


def _joined(body: list[Instruction]) -> Iterator[Instruction]:
    """The same with reads of neighbouring words, between two barriers or writes, joined as ptxas does."""
    narrow: dict[tuple[str, str], set[int]] = {}
    for each in body:
        if each.name.startswith("ld.shared") and each.name.endswith("32") and ".v" not in each.name:
            base, offset = _place(each)
            narrow.setdefault((each.guard, base), set()).add(offset)
            continue
        if each.name.startswith(("bar", "st.shared", "cp.async")):
            yield from _wide_reads(narrow)
            narrow.clear()
        yield each
    yield from _wide_reads(narrow)


def _wide_reads(narrow: dict[tuple[str, str], set[int]]) -> Iterator[Instruction]:
    """Reads of 4, 2 or 1 words that lie where such a read may begin."""
    for (guard, base), offsets in narrow.items():
        left = set(offsets)
        for words in (4, 2, 1):
            for start in sorted(left):
                group = {start + WORD * word for word in range(words)}
                if start % (WORD * words) == 0 and group <= left:
                    left -= group
                    yield Instruction(guard, f"ld.shared.v{words}.b32", ("{}", f"[{base}+{start}]"))


def _shape(instruction: Instruction) -> tuple[int, int, int] | None:
    """Bytes a thread touches, threads served together, and threads of a warp that count; None for others."""
    if found := _SHARED.match(instruction.name):
        return int(found[1] or 1) * int(found[2]) // 8, WARP, WARP
    if found := _MATRIX.match(instruction.name):
        return 16, 8, 8 * int(found[1])
    return (int(instruction.operands[2], 0), WARP, WARP) if _COPY.match(instruction.name) else None


def _place(instruction: Instruction) -> tuple[str, int]:
    """Register and offset of an address."""
    place = next(operand for operand in instruction.operands if operand.startswith("["))
    base, _, offset = place.strip("[] ").replace(" ", "").partition("+")
    return base, int(offset or 0)


def _address(instruction: Instruction, registers: Registers, threads: int) -> Lanes | None:
    base, offset = _place(instruction)
    lanes = value_of(base, registers, threads)
    return None if lanes is None else lanes + offset


def _active(guard: str, registers: Registers, threads: int) -> npt.NDArray[np.bool_]:
    held = registers.get(guard.lstrip("!")) if guard else None
    if held is None:
        return np.ones(threads, dtype=bool)
    return np.asarray(held == 0 if guard.startswith("!") else held != 0)


def _of_warps(
    address: Lanes, active: npt.NDArray[np.bool_], size: int, together: int, counting: int
) -> Iterator[tuple[int, int]]:
    for start in range(0, len(address), together):
        if start % WARP >= counting:
            continue
        lanes = address[start : start + together][active[start : start + together]]
        words = np.unique((lanes[:, None] + np.arange(0, size, min(size, WORD))).ravel() // WORD)
        if len(words):
            yield int(np.bincount(words % BANKS).max()), -(-len(words) // BANKS)
