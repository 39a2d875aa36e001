"""Step 8: the smaller model's training steps compiled as one graph, beside those of step 7.

    python benchmarks/gpu/compiled_training.py WAY --rows FILE

WAY is compiled (execution.compile=step), replayed (graphs), or "replayed float8". Each compiles for a minute
or so: the GPU day has time for the first.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from bare import NO_DEVICE, begin
from training_steps import SIZES, profiled, trained

STEPS = 10
APART = 0.01  # of the losses, which differ by the rounding of bfloat16
WAYS: dict[str, tuple[dict[str, Any], float]] = {
    "compiled": ({"compile": "step"}, APART),
    "replayed": ({"compile": "graphs"}, APART),
    "replayed float8": ({"compile": "graphs", "float8": True}, 5 * APART),
}


def main() -> None:
    from csm.network.float8 import CAPABILITY

    rows, device, (way,) = begin("way")
    if device.type != "cuda":
        rows.skip(f"{way} training steps", NO_DEVICE)
        return
    if "float8" in way and torch.cuda.get_device_capability(device) < CAPABILITY:
        rows.skip(f"{way} training steps", "no float8 products before compute capability 8.9")
        return
    execution, most = WAYS[way]
    name, (sizes, turns) = next(iter(SIZES.items()))
    plain, plain_ms = trained(sizes, turns, device, STEPS)
    start = time.perf_counter()
    losses, ms = trained(sizes, turns, device, STEPS, execution)
    seconds = time.perf_counter() - start
    apart = max(abs(one - other) / abs(other) for one, other in zip(losses, plain, strict=True))
    rows.add(f"a {way} step has the plain one's losses, {name}", gate=apart <= most, apart=apart)
    found = profiled(sizes, turns, device, execution)
    rows.add(f"{way} training step, {name}", ms=ms, plain_ms=plain_ms, ten_steps_s=seconds, **found)


if __name__ == "__main__":
    main()
