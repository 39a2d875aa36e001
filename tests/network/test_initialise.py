"""Initial weights: a seed gives one model, and layers that write to the residual stream start smaller."""

import pytest
import torch
from torch import nn

from csm.model import CSMConfig, CSMModel
from csm.network.initialise import STD, branch_std, zero

SIZES = {"d_model": 128, "n_layers": 8, "n_heads": 2, "depth_inputs": "sum", "latent_dim": 16}


def test_every_weight_starts_at_its_deviation_and_a_seed_repeats_it() -> None:
    torch.manual_seed(0)
    model = CSMModel(CSMConfig(**SIZES))
    torch.manual_seed(0)
    again = CSMModel(CSMConfig(**SIZES)).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.state_dict().items())
    kept = ("depth_decoder.heads", "places", "latent_head", "latent_refiner.out", "pace_head.pace")
    for name, parameter in model.named_parameters():
        if parameter.ndim >= 2 and parameter.numel() > 2000 and not any(part in name for part in kept):
            branch = name.endswith(("o_proj.weight", "down_proj.weight"))
            expected = branch_std(8) if branch else STD
            assert float(parameter.detach().std()) == pytest.approx(expected, rel=0.1), name
    assert not model.latent_head.weight.any() and not model.pace_head.pace.weight.any()


def test_a_layer_that_starts_at_zero_draws_as_many_numbers_as_another() -> None:
    drawn = []
    for start in (zero, lambda layer: nn.init.normal_(layer.weight)):
        layer = nn.Linear(5, 3)
        torch.manual_seed(0)
        start(layer)
        drawn.append(float(torch.rand(())))
    assert drawn[0] == drawn[1]
