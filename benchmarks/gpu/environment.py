"""Step 1: the machine, and its roofs: copy, matrix products, launch latency."""

from __future__ import annotations

import platform
import shutil
import subprocess
from functools import partial

import torch
from bare import NO_DEVICE, begin, replace_missing_packages
from timing import Stopwatch


def commit() -> str:
    """Returns the commit of the tree, "unknown" where git or the history is not there."""
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def clocks() -> str:
    """Returns clocks and power of the card as nvidia-smi prints them."""
    if shutil.which("nvidia-smi") is None:
        return "no nvidia-smi"
    fields = "driver_version,clocks.sm,clocks.mem,clocks.max.sm,power.limit"
    call = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
    done = subprocess.run(call, capture_output=True, text=True)
    return (done.stdout.strip().splitlines() or ["nvidia-smi prints nothing"])[0]


def versions() -> dict[str, str]:
    try:
        import triton

        compiler = triton.__version__
    except ModuleNotFoundError:
        compiler = "missing"
    return {"python": platform.python_version(), "torch": torch.__version__, "triton": compiler}


def main() -> None:
    rows, device, _ = begin()
    cuda = device.type == "cuda"
    card = torch.cuda.get_device_name() if cuda else f"no GPU, {platform.machine()} CPU"
    details = {"clocks": clocks(), "commit": commit(), "missing": ", ".join(replace_missing_packages())}
    rows.add("machine", card=card, **versions(), **details)
    if cuda:
        found = torch.cuda.get_device_properties(device)
        rows.add(
            "device",
            multiprocessors=found.multi_processor_count,
            capability=".".join(map(str, torch.cuda.get_device_capability(device))),
            gigabytes=found.total_memory / 1e9,
        )
    else:
        rows.skip("device", NO_DEVICE)
    roofs(rows, device)


def roofs(rows, device: torch.device) -> None:
    """Measures what no kernel can exceed."""
    watch, cuda = Stopwatch(device), device.type == "cuda"
    size = 8192 if cuda else 256
    source = torch.zeros(2**28 if cuda else 2**16, dtype=torch.int32, device=device)
    target = torch.empty_like(source)
    best = watch.eager(lambda: target.copy_(source))
    rows.add("copy", gigabytes_per_second=2 * source.nbytes / best / 1e6)
    for kind in ("fp32", "tf32", "bf16"):
        torch.backends.cuda.matmul.allow_tf32 = kind == "tf32"
        pair = torch.randn(2, size, size, device=device).to(
            torch.bfloat16 if kind == "bf16" else torch.float32
        )
        rows.add(f"product {kind}", teraflops=2e-9 * size**3 / watch.eager(partial(torch.mm, *pair)))
    torch.backends.cuda.matmul.allow_tf32 = False
    one = torch.zeros(1, device=device)

    def hundred() -> None:
        for _ in range(100):
            one.add_(1)

    rows.add("launch", microseconds=10 * watch.eager(hundred))
    if (replay := watch.replayed(hundred)) is not None:
        rows.add("launch in a graph", microseconds=10 * replay)


if __name__ == "__main__":
    main()
