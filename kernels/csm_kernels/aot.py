"""Compiles every shipped Triton kernel for every supported GPU, without a GPU, and checks what comes out.

    python -m csm_kernels.aot --check     exit status 1 and one line per violation
    python -m csm_kernels.aot --update    writes the golden table golden/VERSION.json of this triton

For another version of triton put its unpacked wheel first on the path, and once
`chmod +x FOLDER/triton/backends/*/bin/*`:

    pip download --no-deps triton==3.6.0 --dest /tmp/wheel && unzip /tmp/wheel/*.whl -d /tmp/triton36
    PYTHONPATH=/tmp/triton36:kernels python -m csm_kernels.aot --check

Checked for each kernel and target, in the machine code (the tools are inside the triton wheel): no register
is spilled, shared memory fits, a tl.dot became matrix instructions where the target has them for its
precision, no atomic adds floats (their order would reach the bits). Registers, shared memory, the number of
instructions and what the inner loop takes from the banks of shared memory (`shared_memory`) are compared with
the golden table of the same triton. Where the golden table has spills, a kernel may have as many and no more:
they cost time and change no result.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from csm_kernels.machine_code import Resources, amd_resources, nvidia_resources, precisions_of_dots
from csm_kernels.shared_memory import inner_loop
from csm_kernels.shipped import FP_FUSION, Shipped

GOLDEN = Path(__file__).with_name("golden")
OPERATIONS = ("rvq_search", "ema_update", "interpolated_attention")
TOLERANCE = 0.03  # share of instructions: the same compiler may schedule otherwise on another host


@dataclass(frozen=True, kw_only=True)
class Target:
    """A GPU to compile for.

    Attributes:
        backend: "cuda" or "hip".
        arch: As triton names it, such as 90 or "gfx942".
        warp_size: Threads of a warp.
        shared_limit: Shared memory one program may have, in bytes.
    """

    backend: str
    arch: int | str
    warp_size: int
    shared_limit: int


TARGETS = {
    **{
        f"sm_{arch}": Target(backend="cuda", arch=arch, warp_size=32, shared_limit=kilobytes * 1024)
        for arch, kilobytes in {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}.items()
    },
    "gfx942": Target(backend="hip", arch="gfx942", warp_size=64, shared_limit=64 * 1024),
}


def compiled(entry: Shipped, target: Target) -> Any:
    """triton's CompiledKernel of an entry, from its disk cache where it is there."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = entry.kernel.arg_names
    signature = {name: entry.signature.get(name, "constexpr") for name in names}
    # As a launch writes them, so that both have the same hash: a test compares them.
    attrs: dict[tuple[int, ...], list[list[Any]]] = {
        (place,): [] for place, name in enumerate(names) if name in entry.constexprs
    }
    attrs |= entry.attrs
    options = {
        "num_warps": entry.num_warps,
        "num_stages": entry.num_stages,
        "enable_fp_fusion": FP_FUSION,
    }
    return triton.compile(
        ASTSource(entry.kernel, signature, entry.constexprs, dict(sorted(attrs.items()))),
        target=GPUTarget(target.backend, target.arch, target.warp_size),
        options=options,
    )


def measure(entry: Shipped, target: Target) -> tuple[Resources, set[str]]:
    """Compiles one kernel for one target: its resources and the kinds of its tl.dot."""
    kernel = compiled(entry, target)
    shared, dots = kernel.metadata.shared, precisions_of_dots(kernel.asm["ttir"])
    if target.backend == "hip":
        return amd_resources(kernel.asm["amdgcn"], shared), dots
    import triton

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(kernel.asm["cubin"])
        sass, usage = (
            subprocess.run([tools / tool, option, cubin], check=True, capture_output=True, text=True).stdout
            for tool, option in (("nvdisasm", "-c"), ("cuobjdump", "-res-usage"))
        )
    return nvidia_resources(sass, usage, shared, inner_loop(kernel.asm["ptx"])), dots


def violations(found: Resources, dots: set[str], target: Target, spills: int = 0) -> list[str]:
    """What is wrong with a compiled kernel by itself; as many as `spills` are known and borne."""
    wrong = []
    if found.spills > spills:
        wrong.append(f"spills registers ({found.spills}); use a smaller tile or more warps")
    if found.shared > target.shared_limit:
        wrong.append(f"takes {found.shared} bytes of shared memory, {target.shared_limit} exist")
    if found.float_atomics:
        wrong.append(f"has {found.float_atomics} float atomics: their order would reach the bits")
    # NVIDIA has no matrix instruction for fp32 as it is; there a product is a chain of fused multiply-adds.
    plain = {"f32 ieee"} if target.backend == "cuda" else set()
    if dots - plain and not found.matrix:
        wrong.append(f"has no matrix instruction for its tl.dot of {', '.join(sorted(dots - plain))}")
    if dots & plain and not found.fused:
        wrong.append("has no fused multiply-add for its tl.dot of f32 ieee")
    if target.backend == "cuda" and dots == plain and found.matrix:
        wrong.append(f"has {found.matrix} matrix instructions although its tl.dot asks for ieee fp32")
    return wrong


def differences(found: Resources, golden: dict[str, int] | None) -> list[str]:
    """Where a compiled kernel is not what the golden table, written by the same compiler, says."""
    if golden is None:
        return ["is not in the golden table; run --update and commit it"]
    wrong = []
    for name, value in asdict(found).items():
        expected = golden.get(name)
        room = TOLERANCE * (expected or 0) if name in ("instructions", "fused") else 0
        if expected is None or abs(value - expected) > room:
            wrong.append(f"{name}: {value}, the golden table says {expected}; if meant, run --update")
    return wrong


def shipped_entries(operations: Iterable[str] = OPERATIONS) -> tuple[Shipped, ...]:
    """All entries of the operations that have a Triton kernel."""
    entries: list[Shipped] = []
    for operation in operations:
        module = f"csm_kernels.{operation}.triton_kernel"
        if importlib.util.find_spec(module) is not None:
            entries += importlib.import_module(module).SHIPPED
    names = [entry.name for entry in entries]
    assert len(set(names)) == len(names), f"names must differ: {names}"
    return tuple(entries)


Table = dict[str, dict[str, dict[str, int]]]
_work: list[
    tuple[Shipped, str]
] = []  # what the forked processes of `inspect` inherit: kernels cannot be sent


def _measured(place: int) -> tuple[Resources, set[str]] | str:
    """`measure` of one piece of work, or why it did not compile."""
    entry, target = _work[place]
    try:
        return measure(entry, TARGETS[target])
    except Exception as error:  # whatever the compiler throws: the rest is still worth a look
        return f"{type(error).__name__}: {' '.join(str(error).strip().splitlines()[-1:])}"


def is_launched(entry: Shipped, target: str) -> bool:
    """Whether an entry is launched on a target of `TARGETS`."""
    arch = TARGETS[target].arch
    return entry.generation is None or (isinstance(arch, int) and arch // 10 == entry.generation)


def inspect(
    entries: Sequence[Shipped], targets: Sequence[str], golden: Table | None, jobs: int = 1
) -> tuple[Table, list[str]]:
    """Compiles all entries for all targets and prints a row each.

    Args:
        entries: What to compile.
        targets: Names in TARGETS.
        golden: Resources by entry and target, or None not to compare.
        jobs: Processes that compile.

    Returns:
        The resources by entry and target, and one line per violation.
    """
    columns = "registers", "shared", "spills", "instructions", "loop_wavefronts", "loop_conflicts"
    longest = max((len(entry.name) for entry in entries), default=0)
    print(f"{'kernel':{longest}}  target " + "".join(f"{column:>16}" for column in columns), flush=True)
    _work[:] = [(entry, name) for entry in entries for name in targets if is_launched(entry, name)]
    pool = multiprocessing.get_context("fork").Pool(jobs) if jobs > 1 else None
    results = pool.imap(_measured, range(len(_work))) if pool else map(_measured, range(len(_work)))
    table: Table = {}
    wrong: list[str] = []
    for (entry, name), result in zip(_work, results, strict=True):
        label = f"{entry.name} on {name}"
        if isinstance(result, str):
            wrong.append(f"{label} does not compile: {result}")
            continue
        found, dots = result
        table.setdefault(entry.name, {})[name] = asdict(found)
        expected = None if golden is None else golden.get(entry.name, {}).get(name)
        problems = violations(found, dots, TARGETS[name], (expected or {}).get("spills", 0))
        if golden is not None:
            problems += differences(found, expected)
        wrong += [f"{label} {problem}" for problem in problems]
        cells = "".join(f"{getattr(found, column):>16}" for column in columns)
        print(f"{entry.name:{longest}}  {name:6} {cells}{'  <--' if problems else ''}", flush=True)
    if pool:
        pool.terminate()
    return table, wrong


def written() -> list[str]:
    """Versions of triton that have a golden table."""
    return sorted(path.stem for path in GOLDEN.glob("*.json"))


def _write(path: Path, golden: Table, table: Table) -> None:
    """A part of the operations or targets rewrites its part; a line a kernel and target."""
    for name, rows in table.items():
        golden[name] = {**golden.get(name, {}), **rows}
    kept = {entry.name for entry in shipped_entries()}
    lines = [
        f' "{name}": {{\n'
        + ",\n".join(
            f'  "{target}": {json.dumps(golden[name][target])}'
            for target in TARGETS
            if target in golden[name]
        )
        + "\n }"
        for name in sorted(kept & golden.keys())
    ]
    path.parent.mkdir(exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"wrote {path}")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; see the module. Gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m csm_kernels.aot", description=__doc__.split("\n")[0])
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--check", action="store_true", help="compare with the golden table")
    action.add_argument("--update", action="store_true", help="write the golden table of this triton")
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--operations", nargs="+", choices=OPERATIONS, default=list(OPERATIONS))
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes; all cores by default"
    )
    parser.add_argument("--bear-spills", action="store_true", help="with --update: enter spills as known")
    chosen = parser.parse_args(arguments)
    try:
        import triton
    except ModuleNotFoundError:
        print("triton is not installed, and it is the compiler: pip install triton (Linux only)")
        return 1
    if triton.knobs.runtime.interpret:
        print("TRITON_INTERPRET is set: kernels are interpreted, nothing is compiled; unset it")
        return 1

    path = GOLDEN / f"{triton.__version__}.json"
    golden: Table = json.loads(path.read_text()) if path.exists() else {}
    entries = shipped_entries(chosen.operations)
    compared = golden if golden and chosen.check else None
    table, wrong = inspect(entries, chosen.targets, compared, chosen.jobs)
    if chosen.check:
        if not golden:
            print(f"golden tables: {', '.join(written())}; this is {triton.__version__}: nothing to compare")
        if set(chosen.operations) == set(OPERATIONS):
            gone = golden.keys() - {entry.name for entry in entries}
            wrong += [f"{name} is in the golden table but not shipped; run --update" for name in sorted(gone)]
    else:
        wrong = [line for line in wrong if not (chosen.bear_spills and " spills registers " in line)]
        if not wrong:
            _write(path, golden, table)
    for line in wrong:
        print(f"VIOLATION: {line}")
    print(f"{len(entries)} kernels on {len(chosen.targets)} targets: {len(wrong)} violations")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
