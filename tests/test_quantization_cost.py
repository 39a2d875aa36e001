"""Weights quantized by benchmarks/quantization_cost.py draw the codes of the native loop's int8 copy."""

import runpy
from pathlib import Path

import pytest
import torch

from csm.generation.depth_sampler import DepthSampler
from csm_kernels import has_compiled

SCRIPT = Path(__file__).resolve().parents[1] / "benchmarks/quantization_cost.py"
quantize_weights = runpy.run_path(str(SCRIPT))["quantize_weights"]


@pytest.mark.skipif(not has_compiled("depth_frame"), reason="no compiled kernels")
@torch.no_grad()
def test_quantized_weights_draw_the_codes_of_the_int8_copy(tiny_model) -> None:
    model = tiny_model()
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(40, model.config.d_model, generator=generator)
    asked = {"limit": 24, "temperature": 0.0, "top_k": 0, "generator": generator}

    def frames(weights) -> list[torch.Tensor]:
        drawer = DepthSampler(model, weights)
        return [drawer.later_codes(row, torch.tensor(3), **asked) for row in rows]

    exact, copy = frames("fp32"), frames("int8")
    before = [weight.clone() for weight in model.depth_decoder.parameters()]
    quantize_weights(model.depth_decoder)
    quantized = frames("fp32")
    # An argmax may fall otherwise where two logits are equal up to rounding.
    same = [torch.equal(a, b) for a, b in zip(copy, quantized, strict=True)]
    assert sum(same) >= 39 and not all(torch.equal(a, b) for a, b in zip(exact, quantized, strict=True))
    for weight, old in zip(model.depth_decoder.parameters(), before, strict=True):
        assert float((weight - old).abs().max()) <= float(old.abs().max()) / 254 * 1.001
