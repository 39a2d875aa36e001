"""A model's weights at half their size and less: 16 bits each, and 8 for the two large tables of codes."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from csm import int8_tables
from csm.network.io.weight_files import Weight

# The audio table and the heads of the depth decoder, and the dimension that a code's entries lie along.
TABLES = {"audio_embedding.weight": -1, "depth_decoder.heads": -2}
SCALE = ".scale"


def packed(weights: dict[str, Weight]) -> dict[str, Weight]:
    """Weights in half precision; those of TABLES in 8 bits, with a scale for every code.

    How far rounding is off says `csm.int8_tables`.
    """
    small: dict[str, Weight] = {}
    for name, weight in weights.items():
        if name in TABLES:
            dim = TABLES[name]
            sizes = list(weight.shape)
            sizes[dim] = 1
            small[name + SCALE] = Weight(tuple(sizes), torch.float16, partial(_scale, weight, dim))
            small[name] = Weight(weight.shape, torch.int8, partial(_rounded, weight, dim))
        else:
            small[name] = Weight(weight.shape, torch.float16, partial(_half, weight))
    return small


def restored(weights: dict[str, Weight]) -> dict[str, Weight]:
    """Weights as `packed` found them, up to rounding; others pass as they are."""
    whole: dict[str, Weight] = {}
    for name, weight in weights.items():
        scale = weights.get(name + SCALE)
        if name.removesuffix(SCALE) in TABLES and name.endswith(SCALE):
            continue
        if name in TABLES and weight.dtype == torch.int8 and scale is not None:
            weight = Weight(weight.shape, torch.float32, partial(_product, weight, scale))
        whole[name] = weight
    return whole


def _rounded(weight: Weight, dim: int) -> Tensor:
    return int8_tables.quantize(weight.read(), dim)[0]


def _scale(weight: Weight, dim: int) -> Tensor:
    return int8_tables.quantize(weight.read(), dim)[1]


def _half(weight: Weight) -> Tensor:
    return weight.read().half()


def _product(weight: Weight, scale: Weight) -> Tensor:
    return int8_tables.dequantize(weight.read(), scale.read())
