"""Linear layers whose products run in float8, with one scale for each tensor, computed when it is used.

Inputs and weights are rounded to e4m3, gradients to e5m2, which has more range and less precision
(Micikevicius et al. 2022). Products are summed in fp32. Weights, their gradients and moments stay what they
were.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INPUT, GRADIENT = torch.float8_e4m3fn, torch.float8_e5m2
# Sizes of factors that CUDA's float8 products take.
MULTIPLE = 16
# The first CUDA devices that have them: Ada Lovelace, such as L4 and RTX 4090; Hopper and later.
CAPABILITY = (8, 9)
# Layers of attention and feed-forward blocks. Heads are `linear_cross_entropy`'s.
LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Rounded(NamedTuple):
    """A tensor in float8, close to `values * scale`.

    Attributes:
        values: [M, N] in float8.
        scale: float32 scalar.
    """

    values: Tensor
    scale: Tensor

    @classmethod
    def of(cls, x: Tensor, dtype: torch.dtype) -> Rounded:
        """Returns x [M, N] in a float8 dtype, its largest magnitude at the dtype's largest.

        An infinity or NaN in x makes every product with it NaN.
        """
        most = torch.finfo(dtype).max
        x = x.detach()
        largest = x.abs().amax().float() if x.numel() else x.new_zeros((), dtype=torch.float32)
        scale = (largest / most).clamp_min(torch.finfo(torch.float32).tiny)
        return cls((x.float() / scale).clamp(-most, most).to(dtype), scale)

    @property
    def mT(self) -> Rounded:
        """The transpose, a view."""
        return Rounded(self.values.mT, self.scale)

    def float(self) -> Tensor:
        """Returns what it stands for, in fp32."""
        return self.values.float() * self.scale


def product(a: Rounded, b: Rounded, dtype: torch.dtype) -> Tensor:
    """Returns a [M, K] @ b [K, N] in `dtype`, summed in fp32; sizes of 0 are allowed."""
    rows, inner, columns = *a.values.shape, b.values.shape[1]
    if 0 in (rows, inner, columns):
        return a.scale.new_zeros(rows, columns, dtype=dtype)
    # Rows of a lie in memory one after the other, and columns of b.
    left = _to_multiples(a.values).contiguous()
    right = _to_multiples(b.values).mT.contiguous().mT
    found: Tensor = torch._scaled_mm(left, right, scale_a=a.scale, scale_b=b.scale, out_dtype=dtype)
    return found[:rows, :columns]


def _to_multiples(values: Tensor) -> Tensor:
    rows, columns = (-size % MULTIPLE for size in values.shape)
    if not rows and not columns:
        return values
    # Bytes: there is no padding of float8 on all devices, and 0 is the byte 0.
    return F.pad(values.view(torch.uint8), (0, columns, 0, rows)).view(values.dtype)


class _Products(torch.autograd.Function):
    """x @ weight.T, forward and both gradients in float8; x is kept for the backward pass in float8 alone."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, dtype: torch.dtype) -> Tensor:
        rounded, matrix = Rounded.of(x, INPUT), Rounded.of(weight, INPUT)
        ctx.save_for_backward(*rounded, *matrix)
        ctx.dtypes = x.dtype, weight.dtype
        return product(rounded, matrix.mT, dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        values, scale, weights, weight_scale = ctx.saved_tensors
        of_x, of_weight = ctx.dtypes
        slope = Rounded.of(gradient, GRADIENT)
        x_gradient = weight_gradient = None
        if ctx.needs_input_grad[0]:
            x_gradient = product(slope, Rounded(weights, weight_scale), of_x)
        if ctx.needs_input_grad[1]:
            weight_gradient = product(slope.mT, Rounded(values, scale), of_weight)
        return x_gradient, weight_gradient, None


class Float8Linear(nn.Linear):
    """A linear layer that trains in float8, and otherwise computes what nn.Linear does."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        device = input.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else input.dtype
        rows: Tensor = _Products.apply(input.flatten(0, -2), self.weight, dtype)
        out = rows.unflatten(0, input.shape[:-1])
        return out if self.bias is None else out + self.bias.to(dtype)


def use_float8(model: nn.Module) -> list[str]:
    """Makes the layers of LAYERS train in float8, in place; their parameters are the same objects.

    Returns:
        Names of these layers.
    """
    found = [
        name
        for name, layer in model.named_modules()
        if type(layer) is nn.Linear and name.rpartition(".")[2] in LAYERS
    ]
    for name in found:
        owner, _, leaf = name.rpartition(".")
        plain = cast(nn.Linear, model.get_submodule(name))
        with torch.device("meta"):
            layer = Float8Linear(plain.in_features, plain.out_features, plain.bias is not None)
        layer.weight, layer.bias = plain.weight, plain.bias
        setattr(model.get_submodule(owner), leaf, layer.train(plain.training))
    return found


def require_float8(device: torch.device) -> None:
    """Checks that a device has float8 products; a CPU has, slowly.

    Raises:
        ValueError: A CUDA device that has none.
    """
    if device.type != "cuda":
        return
    found = torch.cuda.get_device_capability(device)
    if found < CAPABILITY:
        raise ValueError(
            f"execution.float8 on {torch.cuda.get_device_name(device)} of compute capability "
            f"{found[0]}.{found[1]}: expected {CAPABILITY[0]}.{CAPABILITY[1]} or more (L4, RTX 4090, H100 "
            f"and later); set execution.float8=false and training.precision=bf16"
        )
