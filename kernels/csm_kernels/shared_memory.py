"""Counts what the inner loop of a compiled kernel takes from shared memory, from its PTX.

A request of a warp takes as many cycles (wavefronts) as the most distinct 4-byte words that one of the 32
banks holds of it; an SM serves one wavefront a cycle beside four fused multiply-adds of a warp. Which words a
request touches follows from the numbers of its threads: the integer instructions of the PTX are evaluated for
all threads of a program at once, every block in turn and without branches, until no address is unknown. Where
a loop moves an address on, all threads move alike, which changes no conflict. ptxas keeps these addresses.
The count is a least one: that lanes of a wide request share a word is taken to cost nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Lanes = npt.NDArray[np.int64]
BANKS, WORD, WARP = 32, 4, 32
PARAMETER = 1024  # stands for every argument: aligned as pointers are, and no bound of a small block


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


@dataclass(frozen=True)
class _Instruction:
    guard: str
    name: str
    operands: tuple[str, ...]


_LINE = re.compile(r"^\s*(?:@(!?%p\d+)\s+)?([a-z][\w.:]*)(?:\s+(.*?))?;")
_LABEL = re.compile(r"^(\$L__BB\w+):")
_OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*")
_SHARED = re.compile(r"(?:ld|st)(?:\.volatile)?\.shared(?:::cta)?(?:\.v(\d))?\.[bfus](\d+)$")
_MATRIX = re.compile(r"(?:ld|st)matrix\.sync\.aligned\.m8n8\.x(\d)(?:\.trans)?\.shared")
_COPY = re.compile(r"cp\.async\.c[ag]\.shared\.global")
_PRODUCT = re.compile(r"(?:wg)?mma\.|tcgen05\.mma\.|wmma\.mma")


def inner_loop(ptx: str) -> InnerLoop:
    """Reads one kernel. A request whose address does not follow from the threads' numbers is an error."""
    threads = re.search(r"\.reqntid (\d+)", ptx)
    if threads is None:
        raise RuntimeError("PTX: expected .reqntid in its head")
    program, labels = _parsed(ptx)
    chosen = _hottest(program, _loops(program, labels))
    requests = _requests(program, set(chosen), int(threads[1]))
    body = [program[place] for place in chosen]
    warps = int(threads[1]) // WARP
    wavefronts, least = (sum(column) for column in zip(*requests, strict=True)) if requests else (0, 0)
    return InnerLoop(
        fused=warps * sum(map(_fused, body)),
        matrix=warps * sum(bool(_PRODUCT.match(each.name)) for each in body),
        wavefronts=wavefronts,
        conflicts=wavefronts - least,
    )


def _parsed(ptx: str) -> tuple[list[_Instruction], dict[str, int]]:
    """Instructions in order, and the place of the first one behind each label."""
    program: list[_Instruction] = []
    labels: dict[str, int] = {}
    for line in ptx.splitlines():
        if label := _LABEL.match(line):
            labels[label[1]] = len(program)
        elif found := _LINE.match(line):
            operands = (operand.strip() for operand in _OPERAND.findall(found[3] or ""))
            program.append(_Instruction(found[1] or "", found[2], tuple(operands)))
    return program, labels


def _loops(program: list[_Instruction], labels: dict[str, int]) -> list[range]:
    """Stretches that a branch at their end repeats; the whole kernel is the last."""
    found = {}
    for place, each in enumerate(program):
        if each.name.startswith("bra") and labels.get(each.operands[0], place + 1) <= place:
            found[labels[each.operands[0]]] = place + 1  # of several branches back to one place the last
    return [*(range(start, end) for start, end in found.items()), range(len(program))]


def _hottest(program: list[_Instruction], loops: list[range]) -> list[int]:
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


def _fused(instruction: _Instruction) -> int:
    if not instruction.name.startswith("fma.rn") or ".f64" in instruction.name:
        return 0
    return 2 if instruction.name.endswith("x2") else 1


def _requests(program: list[_Instruction], wanted: set[int], threads: int) -> list[tuple[int, int]]:
    """Wavefronts of the wanted requests of all warps, and the least that they could take."""
    registers: dict[str, Lanes | None] = {"%tid.x": np.arange(threads)}
    for _ in range(2):  # a block may stand before the block that it follows
        for each in program:
            if each.operands and each.operands[0].startswith("%"):
                _execute(each, registers, threads)
    counts = []
    for place in sorted(wanted):
        each = program[place]
        shape = _shape(each)
        if shape is None:
            continue
        address = _address(each, registers, threads)
        if address is None:
            raise RuntimeError(
                f"PTX: the address of {each.name} {each.operands} does not follow from threads"
            )
        active = _active(each.guard, registers, threads)
        counts += _of_warps(address, active, *shape)
    return counts


def _shape(instruction: _Instruction) -> tuple[int, int, int] | None:
    """Bytes a thread touches, threads served together, and threads of a warp that count; None for others."""
    if found := _SHARED.match(instruction.name):
        return int(found[1] or 1) * int(found[2]) // 8, WARP, WARP
    if found := _MATRIX.match(instruction.name):
        return 16, 8, 8 * int(found[1])
    return (int(instruction.operands[2], 0), WARP, WARP) if _COPY.match(instruction.name) else None


def _address(instruction: _Instruction, registers: dict[str, Lanes | None], threads: int) -> Lanes | None:
    place = next(operand for operand in instruction.operands if operand.startswith("["))
    base, _, offset = place.strip("[] ").replace(" ", "").partition("+")
    lanes = _value(base, registers, threads)
    return None if lanes is None else lanes + int(offset or 0)


def _active(guard: str, registers: dict[str, Lanes | None], threads: int) -> npt.NDArray[np.bool_]:
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


def _value(text: str, registers: dict[str, Lanes | None], threads: int) -> Lanes | None:
    if text.startswith("%"):
        return np.zeros(threads, dtype=np.int64) if text.startswith("%ctaid") else registers.get(text)
    try:
        return np.full(threads, int(text, 0))
    except ValueError:  # the name of an array in shared memory, which begins at 0
        return np.zeros(threads, dtype=np.int64) if re.fullmatch(r"[A-Za-z_]\w*", text) else None


def _wrapped(lanes: Lanes, name: str) -> Lanes:
    """Numbers as a register of this kind holds them, with a sign."""
    if name.endswith("64"):
        return lanes
    bits = 16 if name.endswith("16") else 32
    return ((lanes + (1 << bits - 1)) & ((1 << bits) - 1)) - (1 << bits - 1)


def _bits(lanes: Lanes, name: str) -> Lanes:
    """The same numbers without a sign; 64 bits are taken to have none."""
    return lanes if name.endswith("64") else lanes & (0xFFFF if name.endswith("16") else 0xFFFFFFFF)


def _field(name: str, a: Lanes, start: Lanes, length: Lanes) -> Lanes:
    """A field of bits, for .s32 with its sign."""
    field = (_bits(a, name) >> start) & ((1 << length) - 1)
    return field - ((field >> (length - 1)) << length) if ".s" in name else field


def _logic(a: Lanes, b: Lanes, c: Lanes, table: Lanes) -> Lanes:
    """lop3: bit 4 a + 2 b + c of the table, for each bit."""
    result = np.zeros_like(a)
    for place in range(8):
        if int(table[0]) >> place & 1:
            result |= (a if place & 4 else ~a) & (b if place & 2 else ~b) & (c if place & 1 else ~c)
    return result


_COMPARE: dict[str, Callable[[Lanes, Lanes], npt.NDArray[np.bool_]]] = {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal,
    "ne": np.not_equal, "lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal,
}  # fmt: skip
_OPERATIONS: dict[str, Callable[..., Lanes]] = {
    "mov": lambda name, a: a,
    "cvt": lambda name, a: _bits(a, name) if re.search(r"\.u\d+$", name) else a,
    "cvta": lambda name, a: a,
    "add": lambda name, a, b: a + b,
    "sub": lambda name, a, b: a - b,
    "mul": lambda name, a, b: a * b,
    "mad": lambda name, a, b, c: a * b + c,
    "shl": lambda name, a, b: a << b,
    "shr": lambda name, a, b: (a if ".s" in name else _bits(a, name)) >> b,
    "and": lambda name, a, b: a & b,
    "or": lambda name, a, b: a | b,
    "xor": lambda name, a, b: a ^ b,
    "not": lambda name, a: 1 - a if "pred" in name else ~a,
    "neg": lambda name, a: -a,
    "min": lambda name, a, b: np.minimum(a, b),
    "max": lambda name, a, b: np.maximum(a, b),
    "bfe": _field,
    "lop3": lambda name, *operands: _logic(*operands),
    "selp": lambda name, a, b, chosen: np.where(chosen != 0, a, b),
    "setp": lambda name, a, b: _COMPARE[name.split(".")[1]](a, b).astype(np.int64),
}
_NOT_WHOLE = re.compile(r"\.(?:f\d+|bf16|hi)")


def _execute(instruction: _Instruction, registers: dict[str, Lanes | None], threads: int) -> None:
    """Writes the register of an integer instruction; those of others are unknown."""
    name, (to, *sources) = instruction.name, instruction.operands
    if name.startswith("ld.param"):
        registers[to] = np.full(threads, PARAMETER)
        return
    operation = _OPERATIONS.get(name.split(".")[0])
    values = [_value(source, registers, threads) for source in sources]
    known = [value for value in values if value is not None]
    if operation is None or _NOT_WHOLE.search(name) or len(known) < len(values):
        for register in re.findall(r"%\w+", to):
            registers[register] = None
    elif name.startswith(("mul.wide", "mad.wide")):
        registers[to] = operation(name, *(_wide(value, name) for value in known[:2]), *known[2:])
    else:
        registers[to] = _wrapped(operation(name, *known), "b64" if ".pred" in name else name)


def _wide(lanes: Lanes, name: str) -> Lanes:
    return _bits(lanes, name) if ".u" in name else lanes
