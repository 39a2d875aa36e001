"""Kokoro's waveform generator in torch, from the weights of its ONNX file.

The file runs its convolutions on 8-bit integers, which take 65 % of its time. With its weights, bfloat16
operands and float32 between the convolutions this part takes a quarter of the time; the signal differs from
the float32 one by -40 dB (the two upsamplings' inputs and the last convolution stay float32: their bfloat16
rounding alone costs 10 dB). The layers are those of iSTFTNet (Kaneko et al. 2022) with StyleTTS 2's adaptive
instance normalization and the Snake activation (Li et al. 2023; Ziyin et al. 2020).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

GENERATOR = "/decoder/decoder/generator/"
#: Graph values that enter the generator: features [1, 512, T], harmonics [1, 22, 60 T + 1], style [1, 128].
FEATURES, HARMONICS, STYLE = (
    "/decoder/decoder/decode.3/Div_4_output_0",
    f"{GENERATOR}Concat_3_output_0",
    "/decoder/Slice_output_0",
)
#: Graph value that leaves it: 11 log magnitudes and 11 phases, [1, 22, 60 T + 1].
SPECTRUM = f"{GENERATOR}conv_post/Conv_output_0"
#: Rows of an activation handled at once, so that its passes stay in the second-level cache.
ROWS = 512

Convolution = Callable[[Tensor], Tensor]


class WaveformGenerator:
    """Computes the spectrum of the inverse STFT from features, harmonics and style.

    Args:
        graph: The `onnx.GraphProto` of Kokoro.
    """

    def __init__(self, graph: Any) -> None:
        weights = _Weights(graph)
        half = torch.bfloat16 if torch.ops.mkldnn._is_mkldnn_bf16_supported() else torch.float32
        self.sources = [weights.convolution(f"noise_convs.{i}/Conv_quant", half) for i in range(2)]
        self.source_blocks = [_ResidualBlock(weights, f"noise_res.{i}", half) for i in range(2)]
        self.upsamplings = [weights.convolution(f"ups.{i}/ConvTranspose", torch.float32) for i in range(2)]
        self.blocks = [_ResidualBlock(weights, f"resblocks.{i}", half) for i in range(6)]
        self.last = weights.convolution("conv_post/Conv", torch.float32)

    @torch.inference_mode()
    def spectrum(self, features: np.ndarray, harmonics: np.ndarray, style: np.ndarray) -> np.ndarray:
        """Returns float32 [1, 22, 60 T + 1].

        Args:
            features: Float32 [1, 512, T].
            harmonics: Float32 [1, 22, 60 T + 1], the STFT of the source signal.
            style: Float32 [1, 128].
        """
        x, source, given = _rows(features), _rows(harmonics), torch.from_numpy(style)[0]
        for stage in range(2):
            x = self.upsamplings[stage](functional.leaky_relu(x, 0.1))
            if stage == 1:
                x = torch.cat([x[..., 1:2], x], dim=-1)
            x = x + self.source_blocks[stage](self.sources[stage](source).float(), given)
            x = torch.stack([block(x, given) for block in self.blocks[3 * stage : 3 * stage + 3]]).mean(0)
        spectrum = self.last(functional.leaky_relu(x, 0.01))
        return np.ascontiguousarray(spectrum[:, :, 0].numpy())


class _ResidualBlock:
    """Three residual steps of two convolutions, each after a normalization and an activation."""

    def __init__(self, weights: _Weights, name: str, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.halves = [
            (
                weights.convolution(f"{name}/convs{half}.{step}/Conv_quant", dtype),
                *weights.linear(f"{name}/adain{half}.{step}/fc/Gemm_MatMul_quant"),
                weights.tensor(f"{name}.alpha{half}.{step}").flatten(),
            )
            for step in range(3)
            for half in (1, 2)
        ]

    def __call__(self, x: Tensor, style: Tensor) -> Tensor:
        for step in range(3):
            inner = x
            for convolution, weight, bias, alpha in self.halves[2 * step : 2 * step + 2]:
                gain, shift = (style @ weight + bias).view(2, -1)
                inner = convolution(self._activate(inner, 1 + gain, shift, alpha))
            x = x + inner
        return x

    def _activate(self, x: Tensor, gain: Tensor, shift: Tensor, alpha: Tensor) -> Tensor:
        """Normalizes each channel over time, scales it, and adds the square of its sine (Snake).

        Two sweeps over blocks of rows instead of a dozen over the whole signal: the sweeps wait for memory.
        """
        rows = x[0, :, 0].t()  # channels-last: contiguous [T, C]
        length = len(rows)
        ones = torch.ones(1, ROWS)
        total, squares = torch.zeros(1, rows.shape[1]), torch.zeros(1, rows.shape[1])
        for block in rows.split(ROWS):
            block = block.float()
            # A product with ones: torch's sum over the first axis takes ten times as long.
            total += ones[:, : len(block)] @ block
            squares += ones[:, : len(block)] @ block.square()
        mean = total[0] / length
        scale = gain * torch.rsqrt(squares[0] / length - mean.square() + 1e-5)
        offset = shift - mean * scale
        result = torch.empty(rows.shape, dtype=self.dtype)
        for block, out in zip(rows.split(ROWS), result.split(ROWS), strict=True):
            block = block.float()
            sine = (block * (scale * alpha)).add_(offset * alpha).sin_()
            out.copy_((block * scale).add_(offset).add_(sine.square_().mul_(1 / alpha)))
        return result.t()[None, :, None]


class _Weights:
    """Reads the generator's weights out of the graph; 8-bit ones become float32."""

    def __init__(self, graph: Any) -> None:
        from onnx import numpy_helper

        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._array = numpy_helper.to_array
        self._nodes = {node.name: node for node in graph.node}
        self._makers = {name: node for node in graph.node for name in node.output}
        self._users = {name: node for node in graph.node for name in node.input}

    def tensor(self, name: str) -> Tensor:
        """Returns a stored float tensor of the generator."""
        return torch.from_numpy(self._array(self._stored[f"decoder.decoder.generator.{name}"]).copy())

    def convolution(self, name: str, dtype: torch.dtype) -> Convolution:
        """Returns the convolution of a node over [1, C, 1, T] in channels-last order."""
        node = self._nodes[GENERATOR + name]
        options = {attribute.name: list(attribute.ints) for attribute in node.attribute}
        bias = self.tensor(name.rpartition("/")[0].replace("/", ".") + ".bias").to(dtype)
        weight = self._weight(node)[:, :, None].to(dtype).contiguous(memory_format=torch.channels_last)
        stride, padding = (1, options["strides"][0]), (0, options["pads"][0])
        if node.op_type == "ConvTranspose":
            return lambda x: functional.conv_transpose2d(x.to(dtype), weight, bias, stride, padding)
        dilation = (1, options["dilations"][0])
        return lambda x: functional.conv2d(x.to(dtype), weight, bias, stride, padding, dilation)

    def linear(self, name: str) -> tuple[Tensor, Tensor]:
        """Returns weight [in, out] and bias [out] of a product."""
        weight = self._weight(self._nodes[GENERATOR + name])
        return weight, self.tensor(name.rpartition("/")[0].replace("/", ".") + ".bias")

    def _weight(self, node: Any) -> Tensor:
        if not node.op_type.endswith("Integer"):
            return self._value(node.input[1])
        product = self._users[node.output[0]]
        while product.op_type != "Mul":  # past the bias and the cast to the scales' product
            product = self._users[product.output[0]]
        scales = next(maker for name in product.input if (maker := self._makers[name]).op_type == "Mul")
        scale = next(self._value(name) for name in scales.input if name in self._stored)
        return (self._value(node.input[1]).float() - self._value(node.input[3]).float()) * scale

    def _value(self, name: str) -> Tensor:
        """A stored tensor, or one that the graph dequantizes."""
        if name in self._stored:
            return torch.from_numpy(self._array(self._stored[name]).copy())
        quantized, scale, zero = (self._value(name) for name in self._makers[name].input)
        return (quantized.float() - zero.float()) * scale


def _rows(values: np.ndarray) -> Tensor:
    """[1, C, T] as [1, C, 1, T] in channels-last order."""
    return torch.from_numpy(values)[:, :, None].contiguous(memory_format=torch.channels_last)
