"""Rotary position embedding (Su et al. 2021): frequencies, angles of rows, and the rotation."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Real
from torch import Tensor


def rotary_frequencies(head_dim: int, base: float, scaling: float = 1.0) -> Float[Tensor, " H2"]:
    """Angular frequency of each pair of channels.

    With `scaling` above 1, Llama 3's rule (low factor 1, high factor 4, original context 8192): wavelengths
    beyond 8192 are stretched by `scaling`, those below 2048 kept, those between blended.

    Args:
        head_dim: Width of a head, even.
        base: Wavelengths reach from 2 pi to about 2 pi times this.
        scaling: 1 leaves them as they are.

    Returns:
        fp32 [head_dim / 2], radians per position.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=constants_device()) / head_dim
    if scaling == 1.0:
        return base**-exponents
    # To the last bit as torchtune and transformers compute it: csm-1b was trained with these values, and at
    # position 2048 a last bit is 1e-4 radians.
    frequencies = 1.0 / base**exponents
    wavelength = 2 * math.pi / frequencies
    smooth = (8192 / wavelength - 1.0) / (4.0 - 1.0)
    blended = (1 - smooth) * frequencies / scaling + smooth * frequencies
    scaled = torch.where(wavelength > 8192, frequencies / scaling, frequencies)
    return torch.where((wavelength >= 2048) & (wavelength <= 8192), blended, scaled)


def constants_device() -> torch.device:
    """Where a new module's constants are made: with its parameters, but never on the meta device.

    So a model built there is whole as soon as its parameters are filled in.
    """
    device = torch.get_default_device()
    return torch.device("cpu") if device.type == "meta" else device


class Rotation(NamedTuple):
    """Rotary angles of rows, which all layers of one base share.

    Attributes:
        cos, sin: float32 [*R, 1, H]; sines of the first half of the channels have the other sign.
    """

    cos: Tensor
    sin: Tensor


def rotation(positions: Real[Tensor, "*R"], frequencies: Float[Tensor, " H2"]) -> Rotation:
    """Returns the rotation to these positions, which may be fractions."""
    angles = (positions.float().unsqueeze(-1) * frequencies).unsqueeze(-2)
    cos, sin = angles.cos(), angles.sin()
    return Rotation(torch.cat([cos, cos], dim=-1), torch.cat([-sin, sin], dim=-1))


def rotate(x: Float[Tensor, "*R N H"], to: Rotation) -> Float[Tensor, "*R N H"]:
    """Rotary position embedding in the half-split form."""
    rotated: Tensor = _Rotate.apply(x, to.cos, to.sin)
    return rotated


def rotate_both(
    q: Float[Tensor, "*R N H"], k: Float[Tensor, "*R M H"], to: Rotation
) -> tuple[Float[Tensor, "*R N H"], Float[Tensor, "*R M H"]]:
    """Rotates queries and keys of the same rows: on CUDA as one tensor, with half as many kernels."""
    if not q.is_cuda:
        return rotate(q, to), rotate(k, to)
    return joined_rotation(q, k, to)


def joined_rotation(q: Tensor, k: Tensor, to: Rotation) -> tuple[Tensor, Tensor]:
    """The form of `rotate_both` that CUDA takes; its results are views of one tensor."""
    heads = q.shape[-2], k.shape[-2]
    first, second = rotate(torch.cat([q, k], dim=-2), to).split(heads, dim=-2)
    return first, second


class _Rotate(torch.autograd.Function):
    """x * cos + (x with its halves exchanged) * sin in fp32: four operators each way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        exact = x.float()
        return (exact * cos).add_(exact.roll(exact.shape[-1] // 2, -1).mul_(sin)).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        exact = gradient.float()
        exchanged = (exact * sin).roll(exact.shape[-1] // 2, -1)
        return exchanged.add_(exact * cos).to(gradient.dtype), None, None
