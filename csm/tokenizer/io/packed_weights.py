"""The packaged form of a tokenizer's weights: fp16, and int8 for the codebooks' vectors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from csm.int8_tables import dequantize, quantize

# Name of the scales of "codebooks": other modules have a parameter called scale.
SCALE = "codebooks.scale"
# Running statistics of a CodebookStack.
COUNTS = ("usage", "vector_sum")


def packed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the packaged form of a ConversationalRVQ's state, a quarter of its size.

    A codebook vector keeps 8 bits per entry and one scale: errors of 0.2 to 0.4 % of its largest entry, far
    below the residual that the next codebook describes. Codes are searched and decoded with the same rounded
    vectors. The codebooks' running statistics are left out: a training that starts here begins new ones.
    """
    small: dict[str, Tensor] = {}
    for name, value in state.items():
        if name.endswith(COUNTS):
            continue
        if name.endswith("codebooks"):
            small[name], small[name.replace("codebooks", SCALE)] = quantize(value, dim=-1)
        else:
            small[name] = value.half()
    return small


def unpacked(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns fp32 weights of a state in packaged or in full form."""
    whole = {name: value.float() for name, value in state.items() if not name.endswith(SCALE)}
    for name in [name for name in whole if name.endswith("codebooks")]:
        scale, usage, running = (name.replace("codebooks", part) for part in (SCALE, *COUNTS))
        if scale in state:
            whole[name] = dequantize(state[name], state[scale])
        whole.setdefault(usage, torch.ones(whole[name].shape[:-1]))
        whole.setdefault(running, whole[name] * whole[usage].unsqueeze(-1))
    return whole
