"""Initial weights, as in GPT-2: normal(0.02); layers that write to the residual stream start smaller.

Every module of the network has `reset_parameters`, which draws its weights in the order in which the module
lists them: a seed gives the same weights whatever the modules are made of.
"""

from __future__ import annotations

from torch import nn

STD = 0.02


def branch_std(n_layers: int) -> float:
    """Returns the deviation for layers that write to the residual stream of `n_layers` layers."""
    return STD / (2 * n_layers) ** 0.5


def draw(*layers: nn.Module, std: float = STD) -> None:
    """Draws the weights of linear layers and embeddings; biases stay as torch sets them."""
    for layer in layers:
        assert isinstance(layer, (nn.Linear, nn.Embedding))
        nn.init.normal_(layer.weight, std=std)


def zero(layer: nn.Linear) -> None:
    """Sets weight and bias to zero.

    The weight is drawn before: what later layers draw then does not depend on which layers start at zero.
    """
    draw(layer)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
