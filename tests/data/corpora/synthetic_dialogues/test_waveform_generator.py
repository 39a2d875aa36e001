"""The generator's layers equal their definitions; its weights are what the file's integers stand for."""

from __future__ import annotations

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch.nn import functional

from csm.data.corpora.synthetic_dialogues.waveform_generator import (
    GENERATOR,
    ROWS,
    _ResidualBlock,
    _rows,
    _Weights,
)


def test_an_activation_is_instance_normalization_scale_and_snake() -> None:
    random = torch.Generator().manual_seed(1)
    channels, length = 6, 2 * ROWS + 37
    block = object.__new__(_ResidualBlock)
    block.dtype = torch.float32
    signal = 3 * torch.randn(1, channels, length, generator=random) + 1
    gain, shift, alpha = (torch.rand(channels, generator=random) + 0.5 for _ in range(3))
    result = block._activate(_rows(signal.numpy()), gain, shift, alpha)[0, :, 0]
    normalized = functional.instance_norm(signal.double())[0] * gain[:, None] + shift[:, None]
    expected = normalized + (alpha[:, None] * normalized).sin().square() / alpha[:, None]
    assert (result - expected).abs().max() < 2e-5


def test_a_convolution_with_8_bit_weights_is_the_files_up_to_the_rounding_of_its_input() -> None:
    random = np.random.default_rng(2)
    weight = random.integers(0, 255, (4, 3, 5), dtype=np.uint8)
    bias = random.normal(size=4).astype(np.float32)
    name, scale, zero = f"{GENERATOR}a/Conv_quant", np.float32(0.01), np.uint8(120)
    nodes = [
        helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "x_scale", "x_zero"]),
        helper.make_node(
            "ConvInteger",
            ["q", "w", "x_zero", "w_zero"],
            ["y"],
            name,
            dilations=[2],
            pads=[4, 4],
            strides=[1],
        ),
        helper.make_node("Cast", ["y"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["x_scale", "w_scale"], ["scale"]),
        helper.make_node("Mul", ["f", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "b"], ["out"]),
    ]
    values = {"w": weight, "w_zero": zero, "w_scale": scale, "b": bias.reshape(1, 4, 1)}
    stored = [numpy_helper.from_array(np.asarray(value), key) for key, value in values.items()]
    stored.append(numpy_helper.from_array(bias, "decoder.decoder.generator.a.bias"))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 40])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 4, 40])],
        stored,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    x = random.normal(size=(1, 3, 40)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    result = _Weights(graph).convolution("a/Conv_quant", torch.float32)(_rows(x))[0, :, 0].numpy()
    real = (weight.astype(np.float32) - zero) * scale
    rounding = (max(x.max(), 0) - min(x.min(), 0)) / 255 / 2 * np.abs(real).sum(axis=(1, 2)).max()
    assert 0 < np.abs(result - expected[0]).max() < rounding
