"""int8 vectors with one scale each: how packaged codebooks, and the matrices of voices, are stored."""

from __future__ import annotations

import torch
from torch import Tensor


def quantize(vectors: Tensor, dim: int) -> tuple[Tensor, Tensor]:
    """Rounds vectors to int8.

    The error is 0.2 to 0.4 % of a vector's largest entry.

    Args:
        vectors: Any floating-point tensor.
        dim: Dimension that the entries of one vector lie along; its size in the scale is 1.

    Returns:
        (int8 values of the same shape, from -127 to 127; fp16 scale of each vector).
    """
    vectors = vectors.float()
    scale = (vectors.abs().amax(dim=dim, keepdim=True) / 127).half()
    # Divides by the scale as it is stored. The clamp keeps a vector of zeros from dividing by 0.
    return (vectors / scale.float().clamp_min(1e-8)).round().clamp(-127, 127).to(torch.int8), scale


def dequantize(values: Tensor, scale: Tensor) -> Tensor:
    """Returns the fp32 vectors that `quantize` rounded."""
    return values.float() * scale.float()
