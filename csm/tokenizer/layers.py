"""Causal blocks shared by encoder and decoder, and the switch between whole-signal and streaming use.

A stateful block keeps the past that it needs in `stream_state`. Outside `streaming` it is None and the block
treats its input as a whole signal preceded by silence; inside, successive calls continue one signal.
Tensors have the layout [B, T, C]: on a CPU every linear layer then reads contiguous rows, and the depthwise
convolution takes oneDNN's channels-last path, which is 2.5 to 5 times faster than its [B, C, T] form.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


@contextmanager
def streaming(module: nn.Module, batch_size: int) -> Iterator[None]:
    """Makes successive calls of `module` continue one signal instead of each starting at silence.

    Args:
        module: Any module; every block in it that has a `stream_state` keeps its past.
        batch_size: Batch size of every call inside.

    Raises:
        ValueError: The module is streaming already, or batch_size is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: expected at least 1")
    stateful: list[Any] = [block for block in module.modules() if hasattr(block, "stream_state")]
    if any(block.stream_state is not None for block in stateful):
        raise ValueError(
            "streaming is already entered for this module: leave the first `with` before the second"
        )
    try:
        for block in stateful:
            block.stream_state = block.initial_state(batch_size)
        yield
    finally:
        end_streams(module)


def end_streams(module: nn.Module) -> None:
    """Makes every block of a module forget its past."""
    stateful: list[Any] = [block for block in module.modules() if hasattr(block, "stream_state")]
    for block in stateful:
        block.stream_state = None


def whole_frames(audio: Float[Tensor, "B 1 S"], samples_per_frame: int) -> Float[Tensor, "B 1 S2"]:
    """Appends zeros up to a whole number of frames."""
    return F.pad(audio, (0, -audio.shape[-1] % samples_per_frame))


class CausalDepthwiseConv(nn.Module):
    """A depthwise convolution over time that sees only the past and the present.

    Args:
        channels: Number of channels C.
        kernel_size: Steps that an output sees, the present one included.
    """

    def __init__(self, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.weight = nn.Parameter(torch.empty(channels, 1, 1, kernel_size))
        self.bias = nn.Parameter(torch.zeros(channels))
        nn.init.trunc_normal_(self.weight, std=kernel_size**-0.5)
        self.stream_state: Tensor | None = None

    def initial_state(self, batch_size: int) -> Tensor:
        """Returns the silence before the signal."""
        return self.weight.new_zeros(batch_size, self.kernel_size - 1, self.weight.shape[0])

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Maps [B, T, C] to [B, T, C]; step t depends on steps up to t alone."""
        if self.stream_state is None:
            padded = F.pad(x, (0, 0, self.kernel_size - 1, 0))
        else:
            padded = torch.cat([self.stream_state.to(x.dtype), x], dim=1)
            self.stream_state = padded[:, padded.shape[1] - self.kernel_size + 1 :].detach()
        if x.dtype == torch.float64:
            # torch has no fp64 depthwise convolution: it would run one call per channel.
            taps = self.weight[:, 0, 0].T
            out = self.bias.expand_as(x).clone()
            for tap in range(self.kernel_size):
                out.addcmul_(padded[:, tap : tap + x.shape[1]], taps[tap])
            return out
        image = padded.transpose(1, 2).unsqueeze(2).contiguous(memory_format=torch.channels_last)
        out = F.conv2d(image, self.weight, self.bias, groups=self.weight.shape[0])
        return out.squeeze(2).transpose(1, 2)


class ConvNeXtBlock(nn.Module):
    """Depthwise causal convolution, normalisation and a two-layer perceptron, added to the input.

    Source: Liu et al. 2022, A ConvNet for the 2020s; in one dimension as in Vocos (Siuzdak 2023).

    Args:
        width: Number of channels C.
        kernel_size: Steps that the convolution sees.
        expansion: Hidden width of the perceptron, in multiples of `width`.
    """

    def __init__(self, width: int, *, kernel_size: int = 7, expansion: int = 3) -> None:
        super().__init__()
        self.conv = CausalDepthwiseConv(width, kernel_size)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, expansion * width)
        self.contract = nn.Linear(expansion * width, width)
        # Small, so that a deep stack starts close to the identity; Vocos' 1 / depth, rounded.
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Maps [B, T, C] to [B, T, C]."""
        y = self.contract(F.gelu(self.expand(self.norm(self.conv(x))), approximate="tanh"))
        return x + self.scale * y


class Downsample(nn.Module):
    """Merges `stride` neighbouring steps into one: [B, T, C] -> [B, T / stride, D]."""

    def __init__(self, width: int, out_width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width * stride, out_width)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T2 D"]:
        """Maps [B, T, C] to [B, T / stride, D]; T must be a multiple of `stride`."""
        batch, steps, width = x.shape
        return self.project(self.norm(x).reshape(batch, steps // self.stride, width * self.stride))


class Upsample(nn.Module):
    """Splits every step into `stride` steps: [B, T, C] -> [B, T * stride, D]."""

    def __init__(self, width: int, out_width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, out_width * stride)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T2 D"]:
        """Maps [B, T, C] to [B, T * stride, D]."""
        batch, steps, _ = x.shape
        return self.project(self.norm(x)).reshape(batch, steps * self.stride, -1)
