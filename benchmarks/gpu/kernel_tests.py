"""Step 3: the kernels' own tests on the device. They need pytest, and none of the tests' other packages."""

from __future__ import annotations

import importlib.util
import os
import xml.etree.ElementTree as xml
from pathlib import Path

from bare import NO_DEVICE, begin

ROOT = Path(__file__).resolve().parents[2]


def main() -> None:
    rows, device, _ = begin()
    if importlib.util.find_spec("pytest") is None:
        rows.skip("tests", "pytest is not installed")
        return
    folder = ROOT / "tests/kernels"
    # Without a device the interpreter would run the triton files: `make test` does that.
    triton = sorted(folder.glob("test_*_triton.py")) if device.type == "cuda" else []
    files = [folder / "test_cuda.py", *triton]
    results = Path(os.environ.get("GPU_DAY_OUT", ".")) / "kernel_tests.xml"
    call = ["-q", "-p", "no:cacheprovider", f"--rootdir={ROOT}", f"--junit-xml={results}"]
    call += [f"--confcutdir={folder}", *map(str, files)]  # tests/conftest.py needs packages of the data part
    if device.type == "cuda" and importlib.util.find_spec("xdist") is not None:
        call += ["--numprocesses", "8"]
    import pytest

    status = int(pytest.main(call))
    cases = list(xml.parse(results).iter("testcase")) if results.is_file() else []
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    for case in failed:
        rows.add(f"{case.get('classname')}::{case.get('name')}", gate=False)
    passed = len(cases) - len(failed) - len(skipped)
    counts = {"passed": passed, "failed": len(failed), "left_out": len(skipped)}
    rows.add("tests", **counts, gate=status == 0 and bool(cases))
    if device.type != "cuda":
        rows.skip("tests on the device", NO_DEVICE)


if __name__ == "__main__":
    main()
