"""A model's weights at a quarter of their size: 8 bits in matrices, 16 in what is small."""

from __future__ import annotations

from functools import partial
from math import prod

import torch
from torch import Tensor

from csm import int8_tables
from csm.network.io.weight_files import Weight

# The dimension that one scale holds for, where it is not the last: a code's entries in the depth heads.
DIMENSIONS = {"depth_decoder.heads": -2}
# Smaller tensors keep 16 bits: gates and norms are few, and rounding them changes all rows at once.
FEWEST_VALUES = 4096
SCALE = ".scale"


def packed(weights: dict[str, Weight]) -> dict[str, Weight]:
    """Returns matrices in 8 bits with a scale for each output or code, all else in half precision.

    How far rounding is off says `csm.int8_tables`.
    """
    small: dict[str, Weight] = {}
    for name, weight in weights.items():
        if len(weight.shape) > 1 and prod(weight.shape) >= FEWEST_VALUES:
            dim = DIMENSIONS.get(name, -1)
            sizes = list(weight.shape)
            sizes[dim] = 1
            small[name + SCALE] = Weight(tuple(sizes), torch.float16, partial(_scale, weight, dim))
            small[name] = Weight(weight.shape, torch.int8, partial(_rounded, weight, dim))
        else:
            small[name] = Weight(weight.shape, torch.float16, partial(_half, weight))
    return small


def restored(weights: dict[str, Weight]) -> dict[str, Weight]:
    """Returns weights as `packed` found them, up to rounding; others pass as they are."""
    rounded = {
        name: weights[name + SCALE]
        for name, weight in weights.items()
        if weight.dtype == torch.int8 and name + SCALE in weights
    }
    whole = {name: weight for name, weight in weights.items() if name.removesuffix(SCALE) not in rounded}
    for name, scale in rounded.items():
        weight = weights[name]
        whole[name] = Weight(weight.shape, torch.float32, partial(_product, weight, scale))
    return whole


def _rounded(weight: Weight, dim: int) -> Tensor:
    return int8_tables.quantize(weight.read(), dim)[0]


def _scale(weight: Weight, dim: int) -> Tensor:
    return int8_tables.quantize(weight.read(), dim)[1]


def _half(weight: Weight) -> Tensor:
    return weight.read().half()


def _product(weight: Weight, scale: Weight) -> Tensor:
    return int8_tables.dequantize(weight.read(), scale.read())
