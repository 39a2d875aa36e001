"""Low-rank adapters on the linear layers that csm-1b has.

A trained layer computes W x + alpha / rank * B A x with W frozen (Hu et al. 2021, arXiv:2106.09685). The
parts that csm-1b lacks take no adapters: they are trained whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from csm.network.conversation_network import ConversationNetwork
from csm.network.parameters import is_added


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """Sizes and places of the adapters.

    Attributes:
        rank: Rank of an adapter's product B A, at least 1.
        alpha: Numerator of the adapters' scale alpha / rank, above 0.
        dropout: Dropout rate of the adapters' input in training, 0 to below 1.
        targets: Linear layers that get an adapter, by whole name ("codebook0_head",
            "depth_decoder.projection") or by the end of the name ("q_proj", "attention.q_proj").
        inside: Parts of the model in which the ends of names are looked for.

    Raises:
        ValueError: A rank below 1, an alpha not above 0, a dropout out of range, or no targets.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    inside: tuple[str, ...] = ("backbone", "depth_decoder")

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"rank is {self.rank}: expected at least 1")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"alpha is {self.alpha}: expected a number above 0 (often twice the rank)")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}: expected 0 to below 1")
        if not self.targets or not self.inside:
            raise ValueError(
                "targets and inside: expected at least one name in each, such as q_proj, backbone"
            )


class LoRALinear(nn.Module):
    """A linear layer with its weight frozen under the name it had, and the two factors beside it.

    Args:
        base: The layer; its weight is taken over.
        config: Sizes.
    """

    def __init__(self, base: nn.Linear, config: LoRAConfig) -> None:
        super().__init__()
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight, self.bias = base.weight, base.bias
        self.scale = config.alpha / config.rank
        self.dropout = nn.Dropout(config.dropout)
        place: dict[str, Any] = {"device": base.weight.device, "dtype": base.weight.dtype}
        # Names and start are peft's: A as a new linear layer, B zero, so that nothing changes at first.
        self.lora_A = nn.Linear(base.in_features, config.rank, bias=False, **place)
        self.lora_B = nn.Linear(config.rank, base.out_features, bias=False, **place)
        nn.init.zeros_(self.lora_B.weight)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output with what the adapter adds."""
        return F.linear(x, self.weight, self.bias) + self.scale * self.lora_B(self.lora_A(self.dropout(x)))


def add_adapters(model: ConversationNetwork, config: LoRAConfig) -> list[str]:
    """Puts adapters into a model; returns the names of their layers. Freezing is the caller's.

    Raises:
        ValueError: A target that names no layer; lists what can be named.
    """
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and not is_added(f"{name}.weight")
    }
    chosen: dict[str, nn.Linear] = {}
    for target in config.targets:
        inner = [
            n
            for n in layers
            if n.endswith(f".{target}") and n.startswith(tuple(f"{p}." for p in config.inside))
        ]
        found = [target] if target in layers else inner
        if not found:
            ends = sorted({name.rpartition(".")[2] if ".blocks." in name else name for name in layers})
            raise ValueError(
                f"LoRA target {target!r} matches no linear layer of csm-1b inside "
                f"{', '.join(config.inside)}: expected some of {', '.join(ends)}, or whole names such as "
                f"{next(iter(layers))}"
            )
        chosen.update({name: layers[name] for name in found})
    for name, layer in chosen.items():
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, LoRALinear(layer, config))
    return list(chosen)


def is_adapter(name: str) -> bool:
    """Whether a parameter is a factor of an adapter."""
    return name.endswith((".lora_A.weight", ".lora_B.weight"))
