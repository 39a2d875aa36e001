"""The compiled library: every kernel for every instruction set, none of it beyond what the set names."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from csm_kernels import native

KERNELS = (
    *("rvq_search", "ema_statistics", "ema_apply", "depth_frame", "vocoder_frames"),
    *("interpolated_attention", "interpolated_attention_backward"),
)
WIDE = re.compile(r"%zmm|%ymm|%k[0-7]\b")

pytestmark = pytest.mark.skipif(not native.instruction_sets(), reason="no compiled kernels")


def listed(program: str, *options: str) -> str:
    if not shutil.which(program):
        pytest.skip(f"no {program}")
    path = native.library()._name
    return subprocess.run([program, *options, path], check=True, capture_output=True, text=True).stdout


def test_the_slowest_instruction_set_comes_first_and_is_always_there():
    names = native.instruction_sets()
    assert names[0] == "base" and list(names) == [name for name in native.INSTRUCTION_SETS if name in names]


@pytest.mark.parametrize("name", KERNELS)
def test_every_kernel_is_there_for_every_instruction_set_and_the_fastest_is_the_default(name):
    for choice in native.instruction_sets():
        assert native.kernel(name, choice).__name__ == f"csm_{name}_{choice}"
    assert native.kernel(name).__name__ == f"csm_{name}_{native.instruction_sets()[-1]}"


def test_a_kernel_that_was_not_compiled_is_not_there():
    assert all(native.has_compiled(name) for name in KERNELS) and not native.has_compiled("rvq_surge")


def test_an_unknown_instruction_set_or_kernel_is_named():
    with pytest.raises(ValueError, match="instruction_set: neon asked for, this machine has"):
        native.kernel("rvq_search", "neon")
    with pytest.raises(ValueError, match="rvq_surge: not compiled for base"):
        native.kernel("rvq_surge", "base")


def test_an_address_is_only_given_of_contiguous_cpu_memory():
    rows = torch.zeros(4, 6)
    assert native.pointer(rows).value == rows.data_ptr() and native.pointer(None).value is None
    for wrong in (rows.T, rows[:, :3], torch.zeros(2, device="meta")):
        with pytest.raises(AssertionError):
            native.pointer(wrong)


def test_the_library_exports_its_kernels_alone_and_needs_neither_torch_nor_the_cpp_library():
    exported = {line.split()[-1] for line in listed("nm", "-D", "--defined-only").splitlines()}
    of_sets = {f"csm_{name}_{choice}" for name in KERNELS for choice in native.INSTRUCTION_SETS}
    unknown = {name for name in exported if name.startswith("csm_")} - of_sets
    assert unknown == {"csm_instruction_sets"}
    # A function shared between instruction sets would be weak, and linked from one that the CPU may lack.
    assert not [line for line in listed("nm", "-C").splitlines() if " W " in line and "(" in line]
    needed = re.findall(r"NEEDED\s+(\S+)", listed("objdump", "-p"))
    assert not [name for name in needed if re.match(r"lib(torch|c10|gomp|omp|iomp|python)", name)], needed


def test_what_runs_on_any_cpu_holds_no_wide_instruction_and_avx2_none_of_avx512():
    program, wide, function = listed("objdump", "-d", "--no-show-raw-insn"), {}, ""
    for line in program.splitlines():
        if line.endswith(">:"):
            function = line.split("<")[1]
        elif found := WIDE.search(line):
            wide.setdefault(function.removesuffix(">:"), set()).add(found[0])
    for name in KERNELS:
        assert not wide.get(f"csm_{name}_base"), name
        assert not wide.get(f"csm_{name}_avx2", set()) - {"%ymm"}, name
    assert "csm_instruction_sets" not in wide


def test_the_library_is_loaded_when_a_kernel_is_asked_for_and_brings_no_second_openmp():
    program = """
import torch, re
def openmp():
    return set(re.findall(r"\\S*lib[gi]?omp[0-9]*[-.]\\S*", open("/proc/self/maps").read()))
from csm_kernels import native, rvq_search
x = torch.randn(500, 64) @ torch.randn(64, 64)
before = openmp()
assert "_native" not in open("/proc/self/maps").read()
rvq_search(x, torch.randn(2, 50, 64))
assert "_native" in open("/proc/self/maps").read()
assert openmp() == before, (before, openmp())
"""
    folder = Path(native.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
