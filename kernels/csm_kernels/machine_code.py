"""Reads what a compiled kernel takes from its machine code."""

from __future__ import annotations

import re
from dataclasses import dataclass

from csm_kernels.shared_memory import InnerLoop


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a compiled kernel takes.

    Attributes:
        registers: Per thread (AMD: vector registers).
        shared: Bytes per program.
        spills: Accesses to spilled registers and bytes of stack (AMD: vector registers and bytes of stack).
        instructions: In the machine code.
        matrix: Matrix instructions among them.
        fused: Fused multiply-adds of fp32 among them.
        float_atomics: Atomics that add floats among them.
        loop_fused: Fused multiply-adds of fp32 in the inner loop, see `InnerLoop`; NVIDIA only, as the rest.
        loop_matrix: Matrix instructions in it.
        loop_wavefronts: Cycles of shared memory.
        loop_conflicts: Those of them that conflicts of banks add.
    """

    registers: int
    shared: int
    spills: int
    instructions: int
    matrix: int
    fused: int
    float_atomics: int
    loop_fused: int = 0
    loop_matrix: int = 0
    loop_wavefronts: int = 0
    loop_conflicts: int = 0


def _count(pattern: str, text: str) -> int:
    return len(re.findall(pattern, text, re.M))


def nvidia_resources(sass: str, usage: str, shared: int, loop: InnerLoop) -> Resources:
    """Reads the outputs of `nvdisasm -c` and `cuobjdump -res-usage`."""
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    if found is None:
        raise RuntimeError(f"cuobjdump: expected REG and STACK in its output, got {usage!r}")
    return Resources(
        registers=int(found[1]),
        shared=shared,
        spills=_count(r"\b(?:STL|LDL)\b", sass) + int(found[2]),
        instructions=_count(r"^\s*/\*[0-9a-f]{4,}\*/\s+\S", sass),
        matrix=_count(r"\b(?:[HIQD]MMA|[HIQ]GMMA|UTC[HIQO]MMA)\b", sass),
        fused=_count(r"\bFFMA2?\b", sass),
        float_atomics=_count(r"\b(?:U?REDG?|ATOM[GS]?)\.\S*\b(?:B?F\d+|F\d+x\d)\S*", sass),
        loop_fused=loop.fused,
        loop_matrix=loop.matrix,
        loop_wavefronts=loop.wavefronts,
        loop_conflicts=loop.conflicts,
    )


def amd_resources(assembly: str, shared: int) -> Resources:
    """Reads AMD assembly text and its metadata."""

    def field(name: str) -> int:
        found = re.search(rf"^\s*\.{name}:\s*(\d+)", assembly, re.M)
        if found is None:
            raise RuntimeError(f"AMD assembly: expected .{name} in its metadata")
        return int(found[1])

    return Resources(
        registers=field("vgpr_count"),
        shared=shared,
        # Scalar registers spill into lanes of vector ones: no memory is touched.
        spills=field("vgpr_spill_count") + field("private_segment_fixed_size"),
        instructions=_count(r"^\s+(?:[sv]|ds|global|buffer|flat|scratch)_\w+", assembly),
        matrix=_count(r"^\s+v_s?mfmac?_", assembly),
        fused=_count(r"^\s+v_(?:pk_)?(?:fma|fmac|fmak|fmaak|fmamk)_f32", assembly),
        float_atomics=_count(
            r"^\s+(?:global|flat|buffer|ds)_\w*(?:add|min|max)\w*_(?:rtn_)?p?k?_?b?f\d+", assembly
        ),
    )


def precisions_of_dots(ttir: str) -> set[str]:
    """The kinds of tl.dot in a kernel's first intermediate form, such as {"bf16", "f32 ieee"}."""
    kinds = set()
    for line in re.findall(r"tt\.dot\b.*", ttir):
        operand = re.search(r":\s*tensor<[\dx]*x(\w+)>", line)
        assert operand is not None, line
        precision = re.search(r"inputPrecision = (\w+)", line)
        kind = operand[1]
        kinds.add(f"{kind} {precision[1] if precision else 'ieee'}" if kind == "f32" else kind)
    return kinds
