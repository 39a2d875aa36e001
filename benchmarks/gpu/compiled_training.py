"""Step 8: the smaller model's training steps compiled as one graph, beside those of step 7."""

from __future__ import annotations

import time

from bare import NO_DEVICE, begin
from training_steps import SIZES, profiled, trained

STEPS = 10
APART = 0.01  # of the losses, which differ by the rounding of bfloat16


def main() -> None:
    rows, device, _ = begin()
    if device.type != "cuda":
        rows.skip("compiled training steps", NO_DEVICE)
        return
    name, (sizes, turns) = next(iter(SIZES.items()))
    plain, plain_ms = trained(sizes, turns, device, STEPS)
    start = time.perf_counter()
    compiled, ms = trained(sizes, turns, device, STEPS, compiled=True)
    seconds = time.perf_counter() - start
    apart = max(abs(one - other) / abs(other) for one, other in zip(compiled, plain, strict=True))
    rows.add(f"a compiled step has the plain one's losses, {name}", gate=apart <= APART, apart=apart)
    found = profiled(sizes, turns, device, compiled=True)
    rows.add(f"compiled training step, {name}", ms=ms, plain_ms=plain_ms, ten_steps_s=seconds, **found)


if __name__ == "__main__":
    main()
