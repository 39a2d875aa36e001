"""The ahead-of-time gate: what is shipped passes, what is planted does not, what is launched is what it saw.

Everything that compiles runs in a process of its own: this one interprets where there is no CUDA device.
"""

import importlib.metadata
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from csm_kernels import aot
from csm_kernels.shared_memory import InnerLoop

pytest.importorskip("triton")
ROOT = Path(__file__).parents[2]
PATHS = [str(ROOT), str(ROOT / "kernels")]
MINE = ("rvq_search", "ema_update")
OTHER_TRITON = "CSM_OTHER_TRITON"


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Python with the two packages on its path and without the interpreter."""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    path = os.pathsep.join([*PATHS, env.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *arguments],
        env={**env, "PYTHONPATH": path, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )


def program(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    """Runs a program from a file: triton reads the source of kernels."""
    path = folder / "planted.py"
    path.write_text(textwrap.dedent(text))
    return run(str(path))


# The whole table takes minutes: python -m csm_kernels.aot --check
QUICK = ("sm_80", "sm_90", "gfx942")


def test_the_shipped_search_and_update_pass():
    done = run("-m", "csm_kernels.aot", "--check", "--operations", *MINE, "--targets", *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("17 kernels on 3 targets: 0 violations\n")
    rows = [line for line in done.stdout.splitlines() if line.startswith(MINE)]
    assert len(rows) == 37


def test_the_search_passes_with_another_triton_too():
    folder = os.environ.get(OTHER_TRITON)
    if not folder:
        pytest.skip(
            f"{OTHER_TRITON} names no folder with another triton (python -m csm_kernels.aot says how)"
        )
    arguments = "--check", "--operations", "rvq_search", "--targets", "sm_90"
    done = run("-m", "csm_kernels.aot", *arguments, PYTHONPATH=os.pathsep.join([folder, *PATHS]))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "nothing to compare" not in done.stdout


def tables() -> dict[str, aot.Table]:
    return {version: json.loads((aot.GOLDEN / f"{version}.json").read_text()) for version in aot.written()}


# Values that ptxas puts away once a level, outside the inner loops; they cost less than a tile's read.
BORNE = {("3.6.0", "rvq_search/levels", "sm_80"): 12, ("3.6.0", "rvq_search/scan_9_held128", "sm_90"): 22}
BORNE |= {("3.6.0", "ema_update/move_usage", target): 13 for target in ("sm_80", "sm_86", "sm_89")}


def test_two_versions_of_triton_have_golden_tables_of_search_and_update_on_every_target():
    done = run(
        "-c",
        f"from csm_kernels import aot; print(*(e.name for e in aot.shipped_entries({MINE})), sep='\\n')",
    )
    assert done.returncode == 0, done.stderr
    assert len(tables()) >= 2 and "3.6.0" in tables()
    for version, golden in tables().items():
        assert set(golden) >= set(done.stdout.split())
        for name in done.stdout.split():
            scanned = re.fullmatch(r"rvq_search/scan_(\d+)(?:_held\d+)?", name)
            launched = [t for t in aot.TARGETS if scanned is None or re.fullmatch(rf"sm_{scanned[1]}\d", t)]
            assert set(golden[name]) == set(launched)
            for target, row in golden[name].items():
                assert row["spills"] <= BORNE.get((version, name, target), 0), (version, name, target)
                assert row["float_atomics"] == 0


def test_the_oldest_torch_allowed_comes_with_a_triton_that_gathers():
    found = re.search(r'"torch>=(\d+)\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert found and (int(found[1]), int(found[2])) >= (2, 7)  # triton 3.3; 3.2 has no tl.gather


def test_the_searchs_inner_loop_meets_no_bank_conflict_and_waits_for_multiply_adds_alone():
    loops = [
        row
        for golden in tables().values()
        for name in ("rvq_search/levels", "rvq_search/split")
        for target, row in golden[name].items()
        if target.startswith("sm_")
    ]
    assert len(loops) >= 24
    for row in loops:
        assert row["loop_conflicts"] == 0
        assert row["loop_wavefronts"] < row["loop_fused"] / 4  # of an SM's cycle: one, and four


def test_the_scans_inner_loop_is_matrix_instructions_without_a_bank_conflict():
    loops = [
        (target, row)
        for golden in tables().values()
        for name in (8, 9, "9_held64", "9_held128", 10, 12)
        for target, row in golden[f"rvq_search/scan_{name}"].items()
    ]
    assert len(loops) == 16 and len(dict(loops)) == 6
    for target, row in loops:
        assert row["loop_conflicts"] == 0 and row["loop_matrix"] > 0 and row["loop_fused"] == 0, target


def test_planted_faults_are_each_named(tmp_path):
    done = program(
        tmp_path,
        """
        import triton
        import triton.language as tl
        from csm_kernels import aot
        from csm_kernels.shipped import Shipped

        @triton.jit
        def product(a, b, c, count, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, KIND: tl.constexpr):
            m, n, k = tl.arange(0, M)[:, None], tl.arange(0, N)[None, :], tl.arange(0, K)
            total = tl.zeros([M, N], tl.float32)
            for i in range(count):
                left = tl.load(a + i * M * K + m * K + k[None, :])
                right = tl.load(b + i * K * N + k[:, None] * N + n)
                total = tl.dot(left, right, total, input_precision=KIND)
            tl.store(c + m * N + n, total)

        @triton.jit
        def scatter(a, b):
            i = tl.arange(0, 128)
            tl.atomic_add(b + tl.load(a + i), i.to(tl.float32))

        @triton.jit
        def broken(a):
            tl.store(a, unknown)

        def entry(name, kernel, signature, warps=4, stages=1, **constexprs):
            return Shipped(name=name, kernel=kernel, signature=signature, constexprs=constexprs,
                           num_warps=warps, num_stages=stages)

        def products(name, kind, precision, m, n, k, **options):
            signature = {"a": f"*{kind}", "b": f"*{kind}", "c": "*fp32", "count": "i32"}
            return entry(name, product, signature, M=m, N=n, K=k, KIND=precision, **options)

        entries = [
            products("good", "fp32", "ieee", 32, 32, 16),
            products("spilling", "fp32", "ieee", 64, 128, 16, warps=1),
            products("greedy", "bf16", "ieee", 128, 64, 512, stages=2, warps=8),
            products("reduced", "fp32", "tf32", 64, 64, 32),
            entry("scattering", scatter, {"a": "*i64", "b": "*fp32"}),
            entry("broken", broken, {"a": "*fp32"}),
        ]
        table, wrong = aot.inspect(entries, ["sm_80", "gfx942"], None)
        assert table["good"]["gfx942"]["matrix"] and not table["good"]["sm_80"]["matrix"]
        assert table["reduced"]["sm_80"]["matrix"]
        amd_spill = products("spilling_there", "bf16", "ieee", 256, 128, 16, warps=1)
        wrong += aot.inspect([amd_spill], ["gfx942"], None)[1]
        golden = {name: {target: dict(row) for target, row in rows.items()} for name, rows in table.items()}
        assert aot.inspect(entries[:1], ["sm_80"], golden)[1] == []
        golden["good"]["sm_80"]["registers"] += 1
        golden["good"]["sm_80"]["loop_conflicts"] -= 1
        del golden["good"]["gfx942"]
        wrong += aot.inspect(entries[:1], ["sm_80", "gfx942"], golden)[1]
        print(*(f"VIOLATION: {line}" for line in wrong), sep="\\n")
        """,
    )
    assert done.returncode == 0, done.stderr
    lines = [line.removeprefix("VIOLATION: ") for line in done.stdout.splitlines() if "VIOLATION" in line]
    for expected in (
        "spilling on sm_80 spills registers",
        "spilling_there on gfx942 spills registers",
        "greedy on gfx942 takes ",
        "scattering on sm_80 has 1 float atomics",
        "scattering on gfx942 has ",
        "broken on sm_80 does not compile",
        "broken on gfx942 does not compile",
        "good on sm_80 registers: ",
        "good on sm_80 loop_conflicts: ",
        "good on gfx942 is not in the golden table",
    ):
        assert sum(line.startswith(expected) for line in lines) == 1, (expected, lines)
    assert all(
        line.startswith(("spilling", "greedy", "scattering", "broken", "good", "reduced")) for line in lines
    )


def checked(golden: Path, *targets: str) -> subprocess.CompletedProcess[str]:
    """The check of ema_update with the golden tables of a folder."""
    call = "import sys; from pathlib import Path; from csm_kernels import aot; "
    call += f"aot.GOLDEN = Path({str(golden)!r}); sys.exit(aot.main(sys.argv[1:]))"
    return run("-c", call, "--check", "--operations", "ema_update", "--targets", *targets)


def test_a_changed_golden_entry_ends_the_check_with_status_1(tmp_path):
    version = importlib.metadata.version("triton")
    golden = json.loads((aot.GOLDEN / f"{version}.json").read_text())
    golden["ema_update/largest"]["sm_90"]["shared"] += 64
    golden["ema_update/draw"]["sm_90"]["loop_wavefronts"] -= 1
    (tmp_path / f"{version}.json").write_text(json.dumps(golden))
    done = checked(tmp_path, "sm_90")
    wrong = [line for line in done.stdout.splitlines() if line.startswith("VIOLATION")]
    assert done.returncode == 1 and len(wrong) == 2
    assert "ema_update/largest on sm_90 shared: 16, the golden table says 80" in wrong[0]
    assert "ema_update/draw on sm_90 loop_wavefronts: 32, the golden table says 31" in wrong[1]


def test_another_compilers_golden_table_is_not_compared_and_it_says_so(tmp_path):
    (tmp_path / "1.0.json").write_text("{}")
    done = checked(tmp_path, "sm_90")
    assert done.returncode == 0 and "golden tables: 1.0; this is " in done.stdout


@pytest.mark.skipif("TRITON_INTERPRET" not in os.environ, reason="kernels are compiled here")
def test_nothing_is_claimed_under_the_interpreter(capsys):
    assert aot.main(["--check"]) == 1
    assert "TRITON_INTERPRET is set" in capsys.readouterr().out


def test_nothing_is_claimed_without_triton(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "triton", None)
    assert aot.main(["--check"]) == 1
    assert "triton is not installed" in capsys.readouterr().out


def test_what_a_cuda_device_would_be_sent_is_what_was_compiled_ahead(tmp_path):
    # triton's own launch code, up to where it would load the kernel, for a device that is made up. The hash
    # of what it compiles covers source, types, constants, hints and options.
    done = program(
        tmp_path,
        """
        import torch
        from triton.backends.compiler import GPUTarget
        from triton.runtime import driver
        from triton.runtime.jit import JITFunction
        from csm_kernels import aot
        from csm_kernels.ema_update import triton_kernel as update
        from csm_kernels.rvq_search import triton_kernel as search

        class Device:
            def get_current_target(self):
                return GPUTarget("cuda", 90, 32)

            def get_current_device(self):
                return 0

            def get_current_stream(self, device):
                return 0

        driver.set_active(Device())
        launched = {}
        launch = JITFunction.run

        def record(self, *arguments, grid, warmup=False, **options):
            compiled = launch(self, *arguments, grid=grid, warmup=True, **options)
            launched.setdefault(self.__name__, set()).add(compiled.hash)

        JITFunction.run = record
        for width in (1, 5, 8, 16, 64, 100, 128, 256):
            for levels, size in ((1, 1), (2, 100), (16, 64)):
                codebooks = torch.zeros(levels, size, width)
                for rows in (1, 16, 13, 8192):
                    search.search(torch.zeros(rows, width), codebooks, None)
                    off = torch.zeros(rows * width + 1)[1:].view(rows, width)
                    search.search(off, codebooks, None)
                    codes = torch.zeros(rows, levels, dtype=torch.int64)
                    slots = min(64, size)
                    flat = update.statistics(off, codes, codebooks, codes[:, 0], torch.tensor(3), 2, 1, slots)
                    state = codebooks, torch.zeros(levels, size), torch.zeros_like(codebooks)
                    for revive_below in (0.0, 0.05):
                        update.apply(flat, *state, 2, slots, 0.9, 1e-5, revive_below)
        shipped = {}
        entries = aot.shipped_entries(("rvq_search", "ema_update"))
        for entry in (entry for entry in entries if aot.is_launched(entry, "sm_90")):
            compiled = aot.compiled(entry, aot.TARGETS["sm_90"])
            shipped.setdefault(entry.kernel.__name__, set()).add(compiled.hash)
        assert shipped == launched, {name: (shipped[name], launched.get(name)) for name in shipped}
        print(sum(map(len, launched.values())))
        """,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "14\n"


@pytest.mark.parametrize(
    ("line", "atomics"),
    [
        ("RED.E.ADD.F32.FTZ.RN.STRONG.GPU desc[UR4][R2.64], R5 ;", 1),
        ("ATOMG.E.ADD.F16x2.RN.STRONG.GPU PT, RZ, desc[UR4][R2.64], R5 ;", 1),
        ("REDG.E.ADD.BF16x2.RN.STRONG.GPU desc[UR4][R2.64], R5 ;", 1),
        ("REDG.E.ADD.64.STRONG.GPU desc[UR4][R2.64], R6 ;", 0),
        ("ATOMG.E.MIN.S64.STRONG.GPU PT, RZ, desc[UR4][R2.64], R6 ;", 0),
        ("FADD R1, R2, R3 ;", 0),
    ],
)
def test_float_atomics_are_distinguished_from_integer_ones_in_nvidia_code(line, atomics):
    loop = InnerLoop(fused=0, matrix=0, wavefronts=0, conflicts=0)
    code = f"        /*0010*/                   {line}"
    found = aot.nvidia_resources(code, "REG:8 STACK:0 SHARED:0", 0, loop)
    assert found.float_atomics == atomics and found.instructions == 1


@pytest.mark.parametrize(
    ("line", "atomics"),
    [
        ("global_atomic_add_f32 v0, v1, s[0:1]", 1),
        ("global_atomic_pk_add_bf16 v0, v1, s[0:1]", 1),
        ("buffer_atomic_pk_add_f16 v0, v1, s[0:3], 0 offen", 1),
        ("ds_add_rtn_f32 v0, v1, v2", 1),
        ("global_atomic_add_f64 v0, v[2:3], s[0:1]", 1),
        ("global_atomic_add_x2 v0, v[2:3], s[0:1]", 0),
        ("buffer_atomic_smin_x2 v[0:1], v2, s[0:3], 0 offen", 0),
        ("v_add_f32 v0, v1, v2", 0),
    ],
)
def test_float_atomics_are_distinguished_from_integer_ones_in_amd_code(line, atomics):
    fields = ("vgpr_count", "vgpr_spill_count", "sgpr_spill_count", "private_segment_fixed_size")
    metadata = "\n".join(f"    .{field}: 0" for field in fields)
    found = aot.amd_resources(f"\t{line}\n{metadata}\n", 0)
    assert found.float_atomics == atomics and found.instructions == 1
