"""Reads PTX and evaluates its integer instructions for all threads of a program at once."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Lanes = npt.NDArray[np.int64]
Registers = dict[str, Lanes | None]
PARAMETER = 1024  # stands for every argument: aligned as pointers are, and no bound of a small block


@dataclass(frozen=True)
class Instruction:
    guard: str
    name: str
    operands: tuple[str, ...]


_LINE = re.compile(r"^\s*(?:@(!?%p\d+)\s+)?([a-z][\w.:]*)(?:\s+(.*?))?;")
_LABEL = re.compile(r"^(\$L__BB\w+):")
_OPERAND = re.compile(r"\{[^}]*\}|\[[^\]]*\]|[^,\s][^,]*")


def parsed(ptx: str) -> tuple[list[Instruction], dict[str, int]]:
    """Instructions in order, and the place of the first one behind each label."""
    program: list[Instruction] = []
    labels: dict[str, int] = {}
    for line in ptx.splitlines():
        if label := _LABEL.match(line):
            labels[label[1]] = len(program)
        elif found := _LINE.match(line):
            operands = (operand.strip() for operand in _OPERAND.findall(found[3] or ""))
            program.append(Instruction(found[1] or "", found[2], tuple(operands)))
    return program, labels


def loops_of(program: list[Instruction], labels: dict[str, int]) -> list[range]:
    """Stretches that a branch at their end repeats; the whole kernel is the last."""
    found = {}
    for place, each in enumerate(program):
        if each.name.startswith("bra") and labels.get(each.operands[0], place + 1) <= place:
            found[labels[each.operands[0]]] = place + 1  # of several branches back to one place the last
    return [*(range(start, end) for start, end in found.items()), range(len(program))]


def evaluated(program: Sequence[Instruction], threads: int) -> Registers:
    """Registers after every block in turn and without branches, None where a number is not known."""
    registers: Registers = {"%tid.x": np.arange(threads)}
    for _ in range(2):  # a block may stand before the block that it follows
        for each in program:
            if each.operands and each.operands[0].startswith("%"):
                _execute(each, registers, threads)
    return registers


def value_of(text: str, registers: Registers, threads: int) -> Lanes | None:
    if text.startswith("%"):
        return np.zeros(threads, dtype=np.int64) if text.startswith("%ctaid") else registers.get(text)
    try:
        return np.full(threads, (int(text, 0) + (1 << 63)) % (1 << 64) - (1 << 63))
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
    "selp": lambda name, a, b, chosen: b + (a - b) * (chosen != 0),
    "setp": lambda name, a, b: _COMPARE[name.split(".")[1]](a, b).astype(np.int64),
}
_NOT_WHOLE = re.compile(r"\.(?:f\d+|bf16|hi)")


def _execute(instruction: Instruction, registers: Registers, threads: int) -> None:
    """Writes the register of an integer instruction; those of others are unknown."""
    name, (to, *sources) = instruction.name, instruction.operands
    if name.startswith("ld.param"):
        registers[to] = np.full(threads, PARAMETER)
        return
    operation = _OPERATIONS.get(name.split(".")[0])
    values = [value_of(source, registers, threads) for source in sources]
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
