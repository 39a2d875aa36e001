"""One compiled configuration of a Triton kernel, described so that it can be built without a GPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Shipped:
    """A kernel exactly as it is launched: `csm_kernels.aot` compiles it for every supported GPU.

    Attributes:
        name: Unique name; the key in the golden tables `golden/`.
        kernel: The `triton.jit` function.
        signature: Triton type of each run-time argument by name, such as `"*fp32"` or `"i32"`.
        constexprs: Value of each `tl.constexpr` argument by name.
        num_warps: Warps per program.
        num_stages: Software pipelining stages.
        generation: Major number of the compute capability of the GPUs it is launched on; None: all GPUs.
        attrs: Divisibility hints, `{(argument_index,): [["tt.divisibility", 16]]}`.
    """

    name: str
    kernel: Any
    signature: dict[str, str]
    constexprs: dict[str, Any]
    num_warps: int
    num_stages: int
    generation: int | None = None
    attrs: dict[tuple[int, ...], list[list[Any]]] = field(default_factory=dict)


FP_FUSION = False
"""Whether the compiler may join a product and a sum that the source writes apart. Never: the bits of the
update, which the specification computes step by step, would follow the compiler. (tl.dot is not concerned: it
asks for fused multiply-adds by itself.)"""
