"""LoRA adapters in the files of Hugging Face's peft, and merged into a stored model.

Names in the files are those of transformers' CSM, so that peft can load an adapter there. Parts that csm-1b
lacks take no adapters: they are trained whole and lie in a file beside, which peft does not read.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from csm.network.io.checkpoints import StoredModel
from csm.network.io.weight_files import Weight, stored_weights
from csm.network.lora import LoRAConfig, is_adapter
from csm.network.parameters import is_added, public_name
from csm.system.files import new_file, write_atomically

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
# Parts trained whole beside the adapters, by our names.
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
        stored: Of `csm.network.io.checkpoints.read`.
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
        raise ValueError(f"{path} is no LoRA configuration of peft ({error!r}): copy it again") from error
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
