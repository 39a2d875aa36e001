"""Models of a given number of parameters, by their width."""

from __future__ import annotations

from dataclasses import replace

import torch

from csm.model import CSMModel
from csm.network.model_config import CSMConfig


def parameters_of(config: CSMConfig) -> int:
    """Counts the parameters of a model; no memory is taken."""
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in CSMModel(config).parameters())


def of_size(config: CSMConfig, parameters: int) -> CSMConfig:
    """Returns the config whose backbone has the width that comes nearest to a number of parameters.

    Raises:
        ValueError: The narrowest model has more.
    """
    step = 2 * config.n_heads

    def count(steps: int) -> int:
        return parameters_of(replace(config, d_model=steps * step, d_ff=0))

    if count(1) > parameters:
        raise ValueError(
            f"the model would have {parameters} parameters: expected at least {count(1)} with "
            f"{config.n_layers} layers and {config.n_heads} heads; raise model.d_model of the base"
        )
    low, high = 1, max(2, config.d_model // step)
    while count(high) < parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(middle) <= parameters else (low, middle)
    nearest = min((low, high), key=lambda steps: abs(count(steps) - parameters))
    return replace(config, d_model=nearest * step, d_ff=0)
