"""Low-rank adapters on the linear layers that csm-1b has, in the files of Hugging Face's peft.

A trained layer computes W x + alpha / rank * B A x with W frozen (Hu et al. 2021, arXiv:2106.09685). Names in
the files are those of transformers' CSM, so that peft can load an adapter there; the parts that csm-1b lacks
take no adapters, they are trained whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from csm.network.checkpoints import StoredModel
from csm.network.csm_model import CSMModel
from csm.network.presets import is_added
from csm.network.public_names import public_name
from csm.network.weight_files import Weight, stored_weights
from csm.system.files import new_file, write_atomically

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Parts trained whole beside the adapters, by our names; peft does not look at this file.
WHOLE_PARTS = "csm_parts.safetensors"
PREFIX = "base_model.model."
# What peft can write that changes what an adapter computes, with the only value that is understood here.
UNDERSTOOD: dict[str, Any] = {
    "peft_type": "LORA",
    "bias": "none",
    "fan_in_fan_out": False,
    "modules_to_save": None,
    "use_dora": False,
    "rank_pattern": {},
    "alpha_pattern": {},
}


@dataclass(frozen=True, kw_only=True)
class LoRAConfig:
    """Sizes and places of the adapters.

    Attributes:
        rank: Of the products B A.
        alpha: They weigh alpha / rank.
        dropout: On their input, in training.
        targets: Linear layers that get one, by whole name ("codebook0_head", "depth_decoder.projection") or
            by its end ("q_proj", "attention.q_proj").
        inside: Parts whose layers the ends are looked for in.

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


def add_adapters(model: CSMModel, config: LoRAConfig) -> list[str]:
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


def save_adapter(
    folder: Path, state: Mapping[str, Tensor], config: LoRAConfig, *, base: str, whole: Iterable[str] = ()
) -> None:
    """Writes the adapters of a state dict in peft's format; makes the folder.

    Args:
        folder: Of adapter_config.json and adapter_model.safetensors.
        state: Of a model with adapters.
        config: Of `add_adapters`.
        base: Where the model without them lies; goes into adapter_config.json.
        whole: Names of parameters trained beside them, written to csm_parts.safetensors, which `merge` reads.
    """
    factors = {_peft_name(name): value.contiguous() for name, value in state.items() if is_adapter(name)}
    layers = sorted({key[len(PREFIX) :].rpartition(".lora_")[0] for key in factors})
    described = {
        **UNDERSTOOD,
        "auto_mapping": None,
        "base_model_name_or_path": base,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "r": config.rank,
        # Whole names: by their ends, peft would also find the layers of Mimi.
        "target_modules": layers,
        "task_type": None,
        "use_rslora": False,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with new_file(folder / ADAPTER_WEIGHTS) as file:
        save_file(factors, file, metadata={"format": "pt"})
    (folder / WHOLE_PARTS).unlink(missing_ok=True)
    if names := list(whole):
        with new_file(folder / WHOLE_PARTS) as file:
            save_file({name: state[name].contiguous() for name in names}, file)
    write_atomically(folder / ADAPTER_CONFIG, json.dumps(described, indent=2) + "\n")


def merged_state(state: Mapping[str, Tensor], config: LoRAConfig) -> dict[str, Tensor]:
    """The state dict of the same model without adapters, their products added to the weights."""
    merged = {name: value for name, value in state.items() if not is_adapter(name)}
    for name in state:
        if name.endswith(".lora_A.weight"):
            layer = name.removesuffix(".lora_A.weight")
            factors = (state[name], state[f"{layer}.lora_B.weight"])
            merged[f"{layer}.weight"] = _added(
                merged[f"{layer}.weight"], *factors, config.alpha / config.rank
            )
    return merged


def merge(stored: StoredModel, folder: Path) -> StoredModel:
    """A stored model with an adapter merged in when its weights are read, one at a time.

    Args:
        stored: Of `csm.network.checkpoints.read`.
        folder: Of `save_adapter`, or of peft for transformers' CSM.

    Raises:
        ValueError: No adapter there, one of a kind that is not understood, or layers that the model lacks or
            has in another shape: all of them are listed.
    """
    scale = _scale_of(folder)
    factors = stored_weights(folder, ADAPTER_WEIGHTS)
    weights = dict(stored.weights)
    places = {public_name(name, "transformers"): name for name in weights if not is_added(name)}
    pairs: dict[str, _Factors] = {}
    problems: list[str] = []
    for key in sorted(factors):
        layer = key.removeprefix(PREFIX).removesuffix(".lora_A.weight").removesuffix(".lora_B.weight")
        name = places.get(f"{layer}.weight")
        pair = [factors.get(f"{PREFIX}{layer}.lora_{factor}.weight") for factor in "AB"]
        if name is None or pair[0] is None or pair[1] is None or not is_adapter(key):
            problems.append(f"{key} belongs to no layer of this model")
            continue
        down, up = pair[0], pair[1]
        if (up.shape[0], down.shape[1]) != weights[name].shape or up.shape[1] != down.shape[0]:
            shapes = f"{list(up.shape)} x {list(down.shape)}"
            problems.append(f"{key} is of {shapes}, the layer of {list(weights[name].shape)}")
            continue
        pairs[name] = _Factors(down, up)
    parts = stored_weights(folder, WHOLE_PARTS) if (folder / WHOLE_PARTS).is_file() else {}
    for name, part in parts.items():
        if name not in weights or weights[name].shape != part.shape:
            problems.append(f"{name} {list(part.shape)} of {WHOLE_PARTS} is not in this model")
    if problems or not pairs:
        listed = "; ".join(problems) or "it holds no layers"
        raise ValueError(
            f"adapter {folder} does not fit the model: {listed}. Give the model it was trained on"
        )
    weights.update(parts)
    for name, pair_of in pairs.items():
        weights[name] = _merged_weight(weights[name], pair_of, scale)
    return stored._replace(weights=weights)


class _Factors(NamedTuple):
    """A [rank, in] and B [out, rank], not yet read."""

    down: Weight
    up: Weight


def _merged_weight(weight: Weight, factors: _Factors, scale: float) -> Weight:
    return weight._replace(read=lambda: _added(weight.read(), factors.down.read(), factors.up.read(), scale))


def _added(weight: Tensor, down: Tensor, up: Tensor, scale: float) -> Tensor:
    """weight + scale * up @ down, in fp32, in the weight's dtype."""
    return torch.addmm(weight.float(), up.float(), down.float(), alpha=scale).to(weight.dtype)


def _peft_name(name: str) -> str:
    layer, _, factor = name.rpartition(".lora_")
    public = public_name(f"{layer}.weight", "transformers").removesuffix(".weight")
    return f"{PREFIX}{public}.lora_{factor}"


def _scale_of(folder: Path) -> float:
    """alpha / rank of an adapter that computes what this file does."""
    path = folder / ADAPTER_CONFIG
    if not path.is_file():
        raise ValueError(f"no adapter in {folder}: expected {ADAPTER_CONFIG} and {ADAPTER_WEIGHTS} there")
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        rank, alpha = int(described["r"]), float(described["lora_alpha"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no LoRA configuration of peft ({error!r}): copy it anew") from error
    other = [
        f"{name} {described[name]!r}"
        for name, value in UNDERSTOOD.items()
        if described.get(name) and described[name] != value
    ]
    if other or rank < 1:
        raise ValueError(
            f"{path} has {', '.join(other) or f'r {rank}'}: expected a plain LoRA; merge this one with peft"
        )
    return alpha / (math.sqrt(rank) if described.get("use_rslora") else rank)
