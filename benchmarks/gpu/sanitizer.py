"""Step 4: compute-sanitizer's memcheck or racecheck over every kernel at small sizes."""

from __future__ import annotations

import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

from bare import NO_DEVICE, begin

PROGRAM = Path(__file__).with_name("every_kernel.py")


def main() -> None:
    rows, device, (tool,) = begin("tool")
    sanitizer = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    # Once by itself: compiles, and separates an error of the program from one that the tool finds.
    runpy.run_path(str(PROGRAM), run_name="__main__")
    if device.type != "cuda":
        rows.skip(tool, NO_DEVICE)
    elif sanitizer is None:
        rows.skip(tool, "compute-sanitizer is not installed")
    else:
        done = subprocess.run(
            [sanitizer, "--tool", tool, "--error-exitcode", "9", sys.executable, str(PROGRAM)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        print(done.stdout)
        if "Device not supported" in done.stdout:
            rows.skip(tool, "compute-sanitizer refuses this device")
            return
        found = re.findall(r"(?:ERROR SUMMARY|RACECHECK SUMMARY): (.*)", done.stdout)
        rows.add(tool, gate=done.returncode == 0, summary=found[-1] if found else "no summary")


if __name__ == "__main__":
    main()
