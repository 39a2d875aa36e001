"""The loops of the compiled kernels: what every pass issues.

python benchmarks/gpu/compiled_loops.py        compiles for sm_90 and writes compiled_loops.json
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

TABLE = Path(__file__).with_name("compiled_loops.json")
TARGET = "sm_90"
KINDS = {
    "fused": r"FFMA2?\b",
    "matrix": r"(?:HMMA|HGMMA|QGMMA)\b",
    "shared": r"(?:LDS|STS|LDSM|STSM)\b",
    "special": r"MUFU\b",
    "barriers": r"BAR\b",
}
_INSTRUCTION = re.compile(r"\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?(\S.*?);")
_LABEL = re.compile(r"\s*\.(L_x_\d+):")
_BACK = re.compile(r"BRA\b.*`\(\.(L_x_\d+)\)")


def parsed(sass: str) -> tuple[list[str], list[tuple[int, int]]]:
    """Returns the instructions of a kernel, and first and last of each loop, outer ones first."""
    instructions: list[str] = []
    labels: dict[str, int] = {}
    for line in sass.splitlines():
        if label := _LABEL.match(line):
            labels[label[1]] = len(instructions)
        elif found := _INSTRUCTION.match(line):
            instructions.append(found[1])
    loops: dict[int, int] = {}
    for place, text in enumerate(instructions):
        back = _BACK.match(text)
        # The last instruction is a branch to itself.
        if back and labels.get(back[1], place + 1) <= place and labels[back[1]] != place:
            loops[labels[back[1]]] = place
    return instructions, sorted(loops.items(), key=lambda loop: loop[0] - loop[1])


def loops_of(sass: str) -> list[dict[str, int]]:
    """Returns what one pass of each loop issues, without the loops inside it; the deepest ones last."""
    instructions, loops = parsed(sass)
    found = []
    for first, last in loops:
        inner = [loop for loop in loops if loop != (first, last) and first <= loop[0] and loop[1] <= last]
        depth = sum(loop[0] <= first and last <= loop[1] for loop in loops)
        own = [
            instructions[place]
            for place in range(first, last + 1)
            if not any(low <= place <= high for low, high in inner)
        ]
        counts = {kind: sum(bool(re.match(pattern, text)) for text in own) for kind, pattern in KINDS.items()}
        found.append({"depth": depth, "instructions": len(own), **counts})
    return found


def main() -> None:
    import triton

    from csm_kernels import aot

    tools = Path(triton.__file__).parent / "backends/nvidia/bin"
    table: dict[str, Any] = {"triton": triton.__version__, "target": TARGET, "kernels": {}}
    for entry in (entry for entry in aot.shipped_entries() if aot.is_launched(entry, TARGET)):
        kernel = aot.compiled(entry, aot.TARGETS[TARGET])
        with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
            Path(file.name).write_bytes(kernel.asm["cubin"])
            call = [tools / "nvdisasm", "-c", file.name]
            sass = subprocess.run(call, check=True, capture_output=True, text=True).stdout
        whole = {name: value for name, value in entry.constexprs.items() if isinstance(value, int)}
        table["kernels"][entry.name] = {
            "warps": entry.num_warps,
            "constants": {name: int(value) for name, value in whole.items()},
            "loops": loops_of(sass),
        }
        print(entry.name, table["kernels"][entry.name])
    TABLE.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
