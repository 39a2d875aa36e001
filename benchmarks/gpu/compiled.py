"""Step 2: the ahead-of-time gate with this machine's compiler, for this machine's card."""

from __future__ import annotations

import contextlib
import io
import os
import re

import torch
from bare import begin

WITHOUT_DEVICE = "sm_90"


def target(names: list[str]) -> str:
    """Returns the newest target that is not above this card's capability."""
    if not torch.cuda.is_available():
        return WITHOUT_DEVICE
    major, minor = torch.cuda.get_device_capability()
    numbers = sorted(int(name[3:]) for name in names if name.startswith("sm_"))
    fitting = [number for number in numbers if number <= 10 * major + minor]
    return f"sm_{fitting[-1]}" if fitting else f"sm_{numbers[0]}"


def main() -> None:
    rows, device, _ = begin()
    os.environ.pop("TRITON_INTERPRET", None)  # read when triton is imported
    from csm_kernels import aot

    place = target(list(aot.TARGETS))
    call = ["--check", "--targets", place]
    if device.type == "cuda":
        call += ["--jobs", str(min(16, os.cpu_count() or 1))]
    else:  # the whole table takes two cores some minutes
        call += ["--jobs", "1", "--operations", "ema_update"]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = aot.main(call)
    text = printed.getvalue()
    print(text)
    heads: list[str] = []
    for line in text.splitlines():
        cells = line.replace("<--", "").split()
        if cells[:2] == ["kernel", "target"]:
            heads = cells[2:]
        elif heads and len(cells) == len(heads) + 2 and all(re.fullmatch(r"\d+", c) for c in cells[2:]):
            rows.add(cells[0], target=cells[1], **dict(zip(heads, map(int, cells[2:]), strict=True)))
    wrong = [line for line in text.splitlines() if line.startswith("VIOLATION: ")]
    for line in wrong:
        rows.add(line.removeprefix("VIOLATION: "), gate=False)
    if "triton is not installed" in text:
        rows.skip("gate", "triton is not installed")
    else:
        rows.add(f"no violation on {place}", gate=status == 0, violations=len(wrong))


if __name__ == "__main__":
    main()
