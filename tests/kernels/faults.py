"""Plants deliberate faults in the kernels, one at a time, and reports which test catches each.

    python tests/kernels/faults.py [--list] [--only NAME ...] [--jobs N] [--no-baseline]

Works in temporary copies of the repository and rebuilds their library where C++ changes. Exit status 1 if a
fault survives, if its text is no longer in its file, or if the tests fail without any fault.
"""

import argparse
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).absolute().parents[2]
KERNELS = "kernels/csm_kernels"
TIMEOUT = 600


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One plausible mistake.

    Attributes:
        name: What is wrong.
        path: File below kernels/csm_kernels.
        old: Text that stands in it once.
        new: What stands there instead.
        test: The test file in tests/kernels that must notice.
    """

    name: str
    path: str
    old: str
    new: str
    test: str


def of(operation: str, *faults: tuple[str, str, str, str]) -> list[Fault]:
    """Faults (name, file, old, new) of one operation; Triton's have tests of their own."""
    made = []
    for name, file, old, new in faults:
        test = f"test_{operation}{'_triton' if file == 'triton_kernel.py' else ''}.py"
        made.append(Fault(name=name, path=f"{operation}/{file}", old=old, new=new, test=test))
    return made


SEARCH = of(
    "rvq_search",
    ("tie flipped", "cpu.cpp", "const vi closer = score < before;", "const vi closer = score <= before;"),
    ("tie between lanes forgotten", "cpu.cpp", " || (best[i] == s && index[i] < c)", ""),
    ("tie between threads flipped", "cpu.cpp", "if (other < s) {", "if (other <= s) {"),
    ("padding of the last panel competes", "tile.h", "half[r] = INFINITY;", "half[r] = 0;"),
    ("missing level offset", "tile.h", "codebooks + q * size * width, size", "codebooks, size"),
    ("missing panel offset of codes", "cpu.cpp", "lanes() + (first + v * W)", "lanes() + (v * W)"),
    ("half of the norm forgotten", "tile.h", "square * 0.5f", "square * 1.0f"),
    (
        "value merged without its index",
        "cpu.cpp",
        "c = choices[set + t * n + row];",
        "c = choices[set + row];",
    ),
    ("one set of scores for all levels", "cpu.cpp", "(q & 1) * team * n", "(q & 1) * n"),
    (
        "order of summation by batch",
        "cpu.cpp",
        "for (int64_t d = 0; d < width; ++d) {\n    vf c[NV];",
        "for (int64_t e = 0; e < width; ++e) {\n    const int64_t d = M > 3 ? e : width - 1 - e;\n"
        "    vf c[NV];",
    ),
    (
        "scores of all rows kept",
        "cpu.cpp",
        "  float* norms = packed + panels * panel_size;\n#pragma",
        "  float* norms = packed + panels * panel_size;\n"
        "  float* all_scores = scratch(work.rows * work.size);\n"
        "  memset(all_scores, 1, (size_t)(work.rows * work.size) * 4);\n#pragma",
    ),
    ("reduced products let in", "api.py", "with exact_products(x.device):", "if True:"),
    ("padding of a group competes", "blocked.py", "value=torch.inf", "value=0.0"),
    (
        "triton: tie flipped",
        "triton_kernel.py",
        "| codes.to(tl.int64)\n\n\n@triton.jit\ndef _code_of(keys):\n    return keys & 0xFFFFFFFF",
        "| (0x7FFFFFFF - codes).to(tl.int64)\n\n\n@triton.jit\ndef _code_of(keys):\n"
        "    return 0x7FFFFFFF - (keys & 0xFFFFFFFF)",
    ),
    (
        "triton: tie flipped in a lane",
        "triton_kernel.py",
        "less = scores < best  # false",
        "less = scores <= best  # false",
    ),
    (
        "triton: lanes of equal scores not compared",
        "triton_kernel.py",
        "tl.min(tl.where(best == tl.min(best, axis=1)[:, None], codes, 0x7FFFFFFF), axis=1)",
        "tl.max(tl.where(best == tl.min(best, axis=1)[:, None], codes, 0), axis=1)",
    ),
    (
        "triton: a scan without its error",
        "triton_kernel.py",
        "tl.min(best, axis=1) + 2.01 * error",
        "tl.min(best, axis=1) + 0 * error",
    ),
    (
        "triton: the error of rounded products alone",
        "triton_kernel.py",
        "product * (2.0**-16 + width * 1.5 * 2.0**-22)",
        "product * 2.0**-22",
    ),
    (
        "triton: codes of one lane not scored again",
        "triton_kernel.py",
        "crowded = ~(second > limit)",
        "crowded = second < best",
    ),
    (
        "triton: pairs that are not of the residual",
        "triton_kernel.py",
        "_store_pair(pairs + d * ROWS + lane, _depth(width, BLOCK_D) * ROWS, r)",
        "_store_pair(pairs + d * ROWS + lane, _depth(width, BLOCK_D) * ROWS, r + c)",
    ),
    (
        "triton: tie flipped where codes are scored again",
        "triton_kernel.py",
        "less = scores < least",
        "less = scores <= least",
    ),
    (
        "triton: tail of codes competes",
        "triton_kernel.py",
        'tl.where(inside, 0.5 * total, float("inf"))',
        "0.5 * total",
    ),
    (
        "triton: missing level offset",
        "triton_kernel.py",
        "        tables += table_size\n        half_norms",
        "        half_norms",
    ),
    (
        "triton: another program's tile",
        "triton_kernel.py",
        "tiles += tl.program_id(0).to(tl.int64) * _depth(width, BLOCK_D) * ROWS\n    parts",
        "parts",
    ),
    (
        "triton: the first program of a tile advances it",
        "triton_kernel.py",
        "if before == tl.num_programs(1) - 1:",
        "if before == 0:",
    ),
)
UPDATE = of(
    "ema_update",
    (
        "rounding by truncation",
        "cpu.cpp",
        "__builtin_convertvector(value, vd) + zero",
        "__builtin_convertvector(__builtin_convertvector(value, vl), vd) + zero",
    ),
    ("inactive levels counted", "cpu.cpp", "          if (row_levels[n] <= q) continue;\n", ""),
    ("overflow not guarded", "cpu.cpp", "  value = value > limit ? limit : value;\n", ""),
    ("revival of the codebook only", "cpu.cpp", "vector[d] = moved;", "vector[d] = row ? vector[d] : moved;"),
    ("usage of the revived forgotten", "cpu.cpp", "if (dead) use[v] = revived_use;", ""),
    ("equal rows revive many codes", "cpu.cpp", " && (s == 0 || kept[s].number != kept[s - 1].number)", ""),
    (
        "tail of columns dropped",
        "cpu.cpp",
        "(width + COLUMNS - 1) / COLUMNS;",
        "width / COLUMNS + !(width / COLUMNS);",
    ),
    (
        "candidates of the first rank only",
        "cpu.cpp",
        "for (int64_t w = 0; w < ranks; ++w)",
        "for (int w = 0; w < 1; ++w)",
    ),
    ("an unreached level moves", "cpu.cpp", "      if (!reached) continue;\n", ""),
    ("the step is no seed", "cpu.cpp", "(uint64_t)step * GOLDEN + ", ""),
    (
        "scale from this rank's data",
        "api.py",
        "stack.codes[:, :count], codebooks, row_levels",
        "stack.codes[:, :count], codebooks * (1 + rows.abs().amax()) if len(rows) else codebooks, row_levels",
    ),
    (
        "one message a level",
        "api.py",
        "dist.all_reduce(flat, group=group)",
        "[dist.all_reduce(f, group=group) for f in flat.chunk(3)]",
    ),
    (
        "the lottery depends on the place",
        "message.py",
        "return (x.contiguous()",
        "return torch.arange(len(x)) + (x.contiguous()",
    ),
    (
        "too few fraction bits",
        "blocked.py",
        "message.fixed_point_exponents(codebooks))",
        "message.fixed_point_exponents(codebooks) - 9)",
    ),
    ("triton: rounding by truncation", "triton_kernel.py", "(size + _WHOLE) - _WHOLE", "tl.floor(size)"),
    (
        "triton: inactive levels counted",
        "triton_kernel.py",
        "active = inside & (reached > level)",
        "active = inside & (reached >= level)",
    ),
)
ATTENTION = of(
    "interpolated_attention",
    ("runs anchored at their start", "cpu.cpp", "const vi rising = slope > 0.0f;", "const vi rising = vi{};"),
    ("missing halo row", "cpu.cpp", "(!seq->direct() && chunk_end(r0) < seq->keys)", "0"),
    (
        "held positions forgotten",
        "cpu.cpp",
        "tile.begin > 0 ? 0 : tile.seq->first(0)",
        "tile.begin >= 0 ? 0 : tile.seq->first(0)",
    ),
    ("doubling off by one", "cpu.cpp", "int bit = 62 - __builtin_clzll", "int bit = 61 - __builtin_clzll"),
    (
        "wrong window edge",
        "cpu.cpp",
        "position + (int32_t)(window - run.start)",
        "position + (int32_t)(window - run.start - 1)",
    ),
    (
        "window's first run dropped",
        "cpu.cpp",
        "tile.begin = seq.key_of(clamp(low, 0, seq.length - 1));",
        "tile.begin = seq.key_of(clamp(low, 0, seq.length - 1)) + 1;",
    ),
    (
        "logarithm of empty rows",
        "cpu.cpp",
        "lse[(seq.q0 + i) * heads + head] = -INFINITY;",
        "lse[(seq.q0 + i) * heads + head] = 0;",
    ),
    ("delta omitted", "cpu.cpp", "const vf above = a - delta,", "const vf above = a,"),
    (
        "offset of queries forgotten",
        "cpu.cpp",
        "(int32_t)(seq->offset + first + v * W)",
        "(int32_t)(first + v * W)",
    ),
    ("old maximum not shrunk", "cpu.cpp", "        sum *= shrink;\n", ""),
    ("second moment omitted", "cpu.cpp", "fma(above, z.u, rise * z.v)", "above * z.u"),
    (
        "gradient to the next key omitted",
        "cpu.cpp",
        "rise * z.u) - by_slope + given_slope",
        "rise * z.u) - by_slope",
    ),
    ("value weight to the next omitted", "cpu.cpp", "store(at, z.p - z.u + given);", "store(at, z.p - z.u);"),
    ("gradients start from garbage", "cpu.cpp", "      memset(value_gradient, 0, gathered);\n", ""),
    ("scale omitted in dq", "cpu.cpp", "result, batch.scale, dq);", "result, 1, dq);"),
    (
        "maximum over positions out of the window",
        "cpu.cpp",
        "WINDOW ? select(view.count > 0, larger, all(NOTHING)) : larger",
        "larger",
    ),
    (
        "end of sums lost near r = 1",
        "cpu.cpp",
        "\n  const vf fall_of_one = one_minus_exp(exponent);",
        "\n  const vf fall_of_one = 1.0f - exp_negative(exponent);",
    ),
    (
        "end of windowed sums lost near r = 1",
        "cpu.cpp",
        "\n    const vf fall_of_one = one_minus_exp(exponent);",
        "\n    const vf fall_of_one = 1.0f - exp_negative(exponent);",
    ),
    ("blocked: wrong window edge", "blocked.py", ".abs() > window", ".abs() >= window"),
    ("blocked: share of the left key", "blocked.py", "torch.lerp(left, right,", "torch.lerp(right, left,"),
    (
        "triton: logarithm of empty rows",
        "triton_kernel.py",
        '(highest + tl.log2(norm)) * LN2, -float("inf"))',
        "(highest + tl.log2(norm)) * LN2, 0.0)",
    ),
)
SHARED = [
    Fault(
        name="exponential's polynomial cut",
        path="simd.h",
        old="p = fma(p, r, all(4.1665795894e-2f));",
        new="p = fma(p, r, all(4.1e-2f));",
        test="test_interpolated_attention.py",
    ),
    Fault(
        name="last tile of rows too short",
        path="simd.h",
        old="(t < rows % tiles)",
        new="(t + 1 < rows % tiles)",
        test="test_rvq_search.py",
    ),
    Fault(
        name="triton: gradient kernels round otherwise",
        path="interpolated_attention/tiles.py",
        old="(16, 16, 16, 4, 1), (16, 16, 16, 4, 1)),",
        new="(16, 16, 16, 4, 1), (16, 16, 64, 4, 1)),",
        test="test_interpolated_attention_triton.py",
    ),
    Fault(
        name="auto falls back to torch",
        path="dispatch.py",
        old="next((name for name, can in able.items() if can), ",
        new="next((name for name, can in able.items() if can and name != 'cpu'), ",
        test="test_dispatch.py",
    ),
    Fault(
        name="tf32 for ieee",
        path="rvq_search/triton_kernel.py",
        old='products, input_precision="ieee")',
        new='products, input_precision="tf32")',
        test="test_aot.py",
    ),
]
FRAME = of(
    "depth_frame",
    ("keys of another head", "cpu.cpp", "n / (s.heads / s.kv_heads) * of_head", "n % s.kv_heads * of_head"),
    ("rotation the other way", "cpu.cpp", "- from[half + i] * sin[i]", "+ from[half + i] * sin[i]"),
    ("tail of a row dropped", "cpu.cpp", "  if (i < n) {", "  if (false) {"),
    (
        "tie of the argmax flipped",
        "cpu.cpp",
        "const vi larger = x > best;",
        "const vi larger = x >= best;",
    ),
    ("more than k where logits are equal", "cpu.cpp", "equal-- > 0", "true"),
    (
        "a code that may not be drawn competes",
        "cpu.cpp",
        "select(place < (int32_t)count,",
        "select(place <= (int32_t)count,",
    ),
    ("one uniform for all steps", "cpu.cpp", "frame.uniforms[book - 1]", "frame.uniforms[0]"),
    ("embedding of the next codebook", "cpu.cpp", "(code + (book - 1) * s.vocab)", "(code + book * s.vocab)"),
    ("sums forgotten", "cpu.cpp", "s.cumulative ? input[i] + row[i] : row[i]", "row[i]"),
    ("scales of the first head", "cpu.cpp", "all_heads.scale + book * vocab", "all_heads.scale"),
    (
        "shares that end inside a block",
        "cpu.cpp",
        "blocks * me / team * BLOCK, last",
        "blocks * me / team * BLOCK + me, last",
    ),
    (
        "an int8 copy is never out of date",
        "weights.py",
        "return all(_state(tensor) == (where, version) for",
        "return all(True for",
    ),
)
VOCODER = of(
    "vocoder_frames",
    (
        "period of this frame",
        "cpu.cpp",
        "return s.period[first + row]; }",
        "return s.periods[(first + row) * s.frames + t]; }",
    ),
    ("prediction 2 samples late", "cpu.cpp", "end - period - 2 + i", "end - period + i"),
    ("samples that are not written yet", "cpu.cpp", "    if (place >= end) place -= period;\n", ""),
    (
        "clamp of the prediction forgotten",
        "cpu.cpp",
        "within_one(scale * past[place])",
        "scale * past[place]",
    ),
    (
        "gain without a bound",
        "cpu.cpp",
        "min(all(w[GAIN] + bias), all(LARGEST_LOG_GAIN))",
        "all(w[GAIN] + bias)",
    ),
    ("one gain of the prediction", "cpu.cpp", "w[PITCH_GAINS + k];", "w[PITCH_GAINS];"),
    ("bias of the next pitch gain", "cpu.cpp", "first.biases[1 + k]", "first.biases[k]"),
    (
        "reset gate before the recurrent product's sum",
        "cpu.cpp",
        "+ reset * load(r + 2 * width + i)",
        "+ load(r + 2 * width + i)",
    ),
    ("memory of the convolution lost", "cpu.cpp", "    copy(w, READ + MEMORY, READ, MEMORY);\n", ""),
    ("scales of the first panel", "cpu.cpp", "scales ? scales + o : nullptr", "scales"),
    ("rows of a tile take the first row's input", "cpu.cpp", "x[r * WORKSPACE + i + c]", "x[i + c]"),
    (
        "order of summation by batch",
        "cpu.cpp",
        "for (int64_t block = 0; block",
        "for (int64_t BLOCK = R > 1 ? 2048 : 16 * CHAINS, block = 0; block",
    ),
    (
        "state changed in place",
        "cpu.py",
        "t.detach().clone(memory_format=torch.contiguous_format)",
        "t.detach().contiguous()",
    ),
    ("packed weights out of date", "cpu.py", "known is None or known.versions != versions", "known is None"),
    ("a first frame without a period", "cpu.cpp", "if (s.period[first + row] == 0)", "if (false)"),
)
FAULTS = [*SEARCH, *UPDATE, *ATTENTION, *FRAME, *VOCODER, *SHARED]


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(str(folder / part) for part in (".", "kernels")),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def copied(folder: Path) -> Path:
    """A copy of what the kernels and their tests need."""
    for part in (KERNELS, "tests/kernels"):
        ignored = shutil.ignore_patterns("__pycache__", "*.so")
        shutil.copytree(ROOT / part, folder / part, ignore=ignored)
    # tests/conftest.py imports others of its folder.
    for file in (ROOT / "setup.py", ROOT / "pyproject.toml", *ROOT.glob("tests/*.py")):
        shutil.copy(file, folder / file.relative_to(ROOT))
    (folder / "csm").symlink_to(ROOT / "csm")
    return folder


# Runs setup.py, but takes an object file that was compiled before from the same text out of a cache.
CACHED_BUILD = """
import hashlib, pathlib, runpy, shutil, sys
import setuptools
from distutils.unixccompiler import UnixCCompiler
cache, compile_one = pathlib.Path(sys.argv.pop(1)), UnixCCompiler._compile
headers = b"".join(path.read_bytes() for path in sorted(pathlib.Path("kernels").rglob("*.h")))
def compile_or_copy(self, obj, src, ext, cc_args, extra_postargs, pp_opts):
    macros = repr((extra_postargs, [option for option in pp_opts if option.startswith("-D")]))
    kept = cache / hashlib.sha256(headers + pathlib.Path(src).read_bytes() + macros.encode()).hexdigest()
    if not kept.exists():
        compile_one(self, obj, src, ext, cc_args, extra_postargs, pp_opts)
        shutil.copy(obj, f"{obj}.copy")
        pathlib.Path(f"{obj}.copy").replace(kept)
    shutil.copy(kept, obj)
UnixCCompiler._compile = compile_or_copy
runpy.run_path("setup.py", run_name="__main__")
"""


def build(folder: Path) -> None:
    cache = folder.parent / "objects"
    cache.mkdir(exist_ok=True)
    options = ["-q", "build_ext", "--inplace", "--build-temp", str(folder / "objects")]
    command = [sys.executable, "-c", CACHED_BUILD, str(cache), *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=TIMEOUT)
    if done.returncode or not list((folder / KERNELS).glob("_native*")):
        raise RuntimeError(f"the library does not build:\n{done.stdout}{done.stderr}")


def first_failure(folder: Path, test: str) -> str | None:
    """The test of a file that fails first, None if none does."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-x",
        "-q",
        "-p",
        "no:cacheprovider",
        "--tb=no",
        "-rfE",  # pyproject.toml asks for the skipped ones alone
        f"tests/kernels/{test}",
    ]
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment(folder), capture_output=True, text=True, timeout=TIMEOUT
        )
    except subprocess.TimeoutExpired:
        return "(no end)"
    if done.returncode == 0:
        return None
    found = re.search(r"^(?:FAILED|ERROR) \S*?::(.+?)(?: - |$)", done.stdout, re.M)
    if found:
        return found[1]
    if done.returncode in (1, 2, 4, 5):
        raise RuntimeError(f"{test}: pytest did not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    return f"(exit status {done.returncode})"  # the interpreter died


def tried(fault: Fault, folder: Path) -> str | None:
    """What catches a fault planted in a copy, which is restored."""
    path = folder / KERNELS / fault.path
    before = path.read_text(encoding="utf-8")
    count = before.count(fault.old)
    if count != 1:
        raise RuntimeError(f"{fault.name}: its text stands {count} times in {fault.path}")
    libraries = {file: file.read_bytes() for file in (folder / KERNELS).glob("_native*")}
    try:
        path.write_text(before.replace(fault.old, fault.new), encoding="utf-8")
        if path.suffix in (".cpp", ".h"):
            build(folder)
        return first_failure(folder, fault.test)
    finally:
        path.write_text(before, encoding="utf-8")
        for file, content in libraries.items():
            file.unlink(missing_ok=True)  # a new file: the old one may still be mapped
            file.write_bytes(content)
            file.chmod(0o755)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="say what the faults are and stop")
    parser.add_argument(
        "--only", nargs="+", default=[], help="faults whose name or file contains one of these"
    )
    parser.add_argument("--jobs", type=int, default=2, help="copies worked in at a time")
    parser.add_argument(
        "--no-baseline", action="store_true", help="do not run the tests without a fault first"
    )
    arguments = parser.parse_args()
    chosen = [
        fault
        for fault in FAULTS
        if not arguments.only or any(part in f"{fault.path}: {fault.name}" for part in arguments.only)
    ]
    if arguments.list:
        for fault in chosen:
            print(f"{fault.path}: {fault.name}")
        return 0
    bad, start = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(arguments.jobs) as pool:
        folders: queue.Queue[Path] = queue.Queue()
        for number in range(arguments.jobs):
            folder = copied(Path(place, str(number)))
            build(folder)
            folders.put(folder)

        def borrowing(work, *given):
            folder = folders.get()
            try:
                began = time.monotonic()
                return work(*given, folder), time.monotonic() - began
            except RuntimeError as error:
                return error, time.monotonic() - began
            finally:
                folders.put(folder)

        tests = [] if arguments.no_baseline else sorted({fault.test for fault in chosen})
        untouched = lambda test, folder: first_failure(folder, test)  # noqa: E731
        for test, (failed, seconds) in zip(
            tests, pool.map(lambda t: borrowing(untouched, t), tests), strict=True
        ):
            print(f"{test} without a fault: {failed or 'passes'}, {seconds:.0f} s", flush=True)
            bad += failed is not None
        if bad:
            return 1
        for fault, (found, seconds) in zip(
            chosen, pool.map(lambda f: borrowing(tried, f), chosen), strict=True
        ):
            said = f"caught by {found}"
            if isinstance(found, RuntimeError):
                said, bad = f"ERROR {found}", bad + 1
            elif found is None:
                said, bad = "NOT caught", bad + 1
            print(f"{fault.path}: {fault.name}: {said} ({seconds:.0f} s)", flush=True)
    print(f"{len(chosen) - bad} of {len(chosen)} faults caught in {time.monotonic() - start:.0f} s")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
