"""A tokenizer's weights at a quarter of their size: 16 bits each, and 8 for the codebooks' vectors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from csm.int8_tables import dequantize, quantize

# Of "codebooks": other modules have a parameter called scale.
SCALE = "codebooks.scale"
# Buffers of a CodebookStack that follow from its vectors.
COUNTS = ("usage", "vector_sum")


def packed(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state of a ConversationalRVQ in its packaged form.

    A codebook vector keeps 8 bits an entry and its own scale: errors of 0.2 to 0.4 % of its largest entry,
    far below what the next codebook describes. Codes are searched and decoded with the same rounded vectors.
    The running usage of codes is left out: a training that goes on from here counts anew.
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
    """fp32 weights of a packaged form, or of a whole one."""
    whole = {name: value.float() for name, value in state.items() if not name.endswith(SCALE)}
    for name in [name for name in whole if name.endswith("codebooks")]:
        scale, usage, running = (name.replace("codebooks", part) for part in (SCALE, *COUNTS))
        if scale in state:
            whole[name] = dequantize(state[name], state[scale])
        whole.setdefault(usage, torch.ones(whole[name].shape[:-1]))
        whole.setdefault(running, whole[name] * whole[usage].unsqueeze(-1))
    return whole
