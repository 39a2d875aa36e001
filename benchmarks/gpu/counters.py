"""Step 6: Nsight Compute's counters of the kernels at a training shape: what bounds them."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
from pathlib import Path

from bare import NO_DEVICE, begin

PROGRAM = Path(__file__).with_name("every_kernel.py")
COUNTERS = {
    "issue_percent": "smsp__issue_active.avg.pct_of_peak_sustained_active",
    "fma_percent": "sm__pipe_fma_cycles_active.avg.pct_of_peak_sustained_active",
    "tensor_percent": "sm__pipe_tensor_cycles_active.avg.pct_of_peak_sustained_active",
    "shared_conflicts": "l1tex__data_bank_conflicts_pipe_lsu_mem_shared.sum",
    "shared_wavefronts": "l1tex__data_pipe_lsu_wavefronts_mem_shared.sum",
    "l2_percent": "lts__t_bytes.avg.pct_of_peak_sustained_elapsed",
    "dram_percent": "dram__bytes.avg.pct_of_peak_sustained_elapsed",
    "occupancy_percent": "sm__warps_active.avg.pct_of_peak_sustained_active",
    "microseconds": "gpu__time_duration.sum",
}
# Those of triton are named as their functions; those of torch begin with a type or a namespace.
OURS = "regex:^_[a-z]"


def parsed(text: str) -> dict[str, dict[str, str]]:
    """Returns {kernel: {counter: value}} of ncu's CSV, of the last launch of each kernel."""
    lines = text.splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith('"ID"')), None)
    found: dict[str, dict[str, str]] = {}
    for line in csv.DictReader(io.StringIO("\n".join(lines[start:]))) if start is not None else ():
        name = line["Kernel Name"].split("(")[0]
        found.setdefault(name, {})[line["Metric Name"]] = line["Metric Value"]
    return found


def main() -> None:
    rows, device, _ = begin()
    if device.type != "cuda":
        rows.skip("counters", NO_DEVICE)
        return
    if (profiler := shutil.which("ncu") or shutil.which("/usr/local/cuda/bin/ncu")) is None:
        rows.skip("counters", "ncu is not installed")
        return
    call = [profiler, "--csv", "--clock-control", "none", "--kernel-name", OURS]
    call += ["--metrics", ",".join(COUNTERS.values()), "--launch-count", "80"]
    done = subprocess.run([*call, sys.executable, str(PROGRAM), "large"], capture_output=True, text=True)
    print(done.stdout[-2000:], done.stderr[-2000:])
    found = parsed(done.stdout)
    for name, values in found.items():
        rows.add(name, **{short: _number(values.get(long)) for short, long in COUNTERS.items()})
    if not found:
        rows.skip("counters", "ncu read nothing: " + (done.stderr or done.stdout).strip()[-160:])


def _number(text: str | None) -> float | None:
    try:
        return float((text or "").replace(",", ""))
    except ValueError:
        return None


if __name__ == "__main__":
    main()
