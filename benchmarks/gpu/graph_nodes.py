"""Counts the kernels in the two CUDA graphs of a frame, for a model of the real size; needs no GPU.

    python benchmarks/gpu/graph_nodes.py

The functions of the graphs run on tensors without values that claim to be on CUDA. Each operator that is no
view counts as one kernel; a few are two (a sort, a scan). So does scaled dot product attention, whose fused
kernels take these shapes in bfloat16; in fp32, of grouped heads, it may be five.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

# Results without a kernel: memory that is only reserved, and views that the schema does not mark.
NO_KERNEL = {"aten::empty", "aten::empty_like", "aten::new_empty", "aten::_unsafe_view", "aten::detach"}


class Kernels(TorchDispatchMode):
    """Counts operators that start a kernel, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        aliases = [result.alias_info for result in function._schema.returns]
        view = bool(aliases) and all(alias is not None and not alias.is_write for alias in aliases)
        name = function._schema.name
        if name.startswith("aten::") and not view and name not in NO_KERNEL:
            self.counts[name] += 1
        return function(*args, **(kwargs or {}))


def kernels(config: Any, dtype: torch.dtype, turns: int = 1) -> dict[str, Counter[str]]:
    """Returns the kernels of the graph of a frame and of that of a row, for `turns` turns of a model."""
    from csm.generation import static_lane
    from csm.generation.static_frames import LaterRule, static_frames
    from csm.model import CSMModel

    def attended(q: Tensor, k: Tensor, v: Tensor, **_: Any) -> Tensor:
        counting[-1].counts["scaled_dot_product_attention"] += 1
        return q.new_empty(*q.shape[:-1], v.shape[-1])

    counting: list[Kernels] = []
    # Nothing is captured, and tensors without values have no address.
    patches = mock.patch.multiple(static_lane, Captured=lambda *_: None, addresses_of=lambda _: ())
    attention = mock.patch.object(F, "scaled_dot_product_attention", attended)
    with FakeTensorMode(), torch.no_grad(), patches, attention:
        torch.set_default_dtype(dtype)
        with torch.device("cuda"):
            model = CSMModel(config).eval()
        torch.set_default_dtype(torch.float32)
        lane = static_lane.StaticLane(model, turns)
        with Kernels() as frame:
            counting.append(frame)
            static_frames(model, lane.hidden, lane._of_frame, LaterRule("sampled", 0.0))
        with Kernels() as row:
            counting.append(row)
            lane._run_rows()
    return {"frame": frame.counts, "row": row.counts}


def main() -> None:
    from csm.network.model_config import CSMConfig
    from csm.network.presets import csm_1b

    large = replace(csm_1b(), text="bytes", text_vocab_size=0)
    for name, config, dtype in (("768 x 12", CSMConfig(), torch.float32), ("csm-1b", large, torch.bfloat16)):
        for graph, counts in kernels(config, dtype).items():
            most = ", ".join(f"{key.removeprefix('aten::')} {n}" for key, n in counts.most_common(9))
            print(f"{name}, graph of a {graph}: {sum(counts.values())} kernels ({most})")


if __name__ == "__main__":
    main()
