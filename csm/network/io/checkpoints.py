"""Model folders: our own layout and the two of csm-1b, read and written one tensor at a time."""

from __future__ import annotations

import json
import shutil
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

import torch
from torch import Tensor, nn

from csm import config as config_files
from csm.network.conversation_network import ConversationNetwork
from csm.network.io import public_configs
from csm.network.io.code_vectors import read_code_vectors
from csm.network.io.packed_weights import packed, restored
from csm.network.io.public_names import MIMI, TWIN, converted
from csm.network.io.weight_files import Weight, stored_weights, write_weights
from csm.network.model_config import CSMConfig
from csm.network.parameters import GROUPS, Layout, group_of, is_added, is_gate, public_name
from csm.system.files import write_atomically
from csm.text import BUILT_IN

Network = TypeVar("Network", bound=ConversationNetwork)
TOKENIZER = "tokenizer.json"
# What transformers' processor and generation read beside the weights; they go along with Mimi.
COMPANIONS = (
    "generation_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "chat_template.json",
)


class StoredModel(NamedTuple):
    """A model in a folder, not yet read.

    Attributes:
        layout: How it is stored. config: Its sizes.
        weights: By our names and in our form; nothing is missing and every shape fits.
    """

    layout: Layout
    config: CSMConfig
    weights: dict[str, Weight]


def load(
    kind: type[Network],
    folder: Path | str,
    *,
    config: CSMConfig | None = None,
    text: str | None = None,
    dtype: torch.dtype = torch.float32,
) -> Network:
    """Reads the network of a folder in any layout, complete and in eval mode.

    Args:
        kind: Class of the network.
        folder, config, text: As `read` takes them.
        dtype: Type of the parameters.

    Raises:
        ValueError: As `read`, or the folder's tokenizer is not the one of the model.
    """
    stored = read(folder, config=config, text=text)
    model = on_meta(kind, stored.config)
    buffers = {name for name, _ in model.named_buffers()}
    for name, weight in stored.weights.items():
        owner, _, leaf = name.rpartition(".")
        value = weight.read().to(dtype)
        # A buffer stays one: as a parameter an optimizer would train it.
        setattr(model.get_submodule(owner), leaf, value if name in buffers else nn.Parameter(value))
    if (vectors := read_code_vectors(Path(folder), stored.config)) is not None:
        model.set_code_vectors(vectors)
    return model.eval()


def save(
    model: ConversationNetwork,
    folder: Path | str,
    layout: Layout = "csm",
    *,
    half: bool = False,
    codec_from: Path | str | None = None,
    shard_bytes: int = 50 * 10**9,
) -> None:
    """Writes a network to a folder, as `CSMModel.save_pretrained` describes.

    Raises:
        ValueError: The layout has no place for what the network computes.
    """
    if half and layout != "csm":
        raise ValueError(f"half with layout {layout!r}: only 'csm' is packed; expected half=False")
    weights = {
        name: Weight(tuple(tensor.shape), tensor.dtype, tensor.detach().cpu)
        for name, tensor in model.state_dict().items()
    }
    weights = packed(weights) if half else weights
    write(folder, model.config, weights, layout, codec_from=codec_from, shard_bytes=shard_bytes)


def on_meta(kind: type[Network], config: CSMConfig) -> Network:
    """Returns a network whose parameters have shapes and no values; its constants are real."""
    with torch.device("meta"):
        return kind(config)


def read(folder: Path | str, *, config: CSMConfig | None = None, text: str | None = None) -> StoredModel:
    """Opens a folder in any of the three layouts, recognised by the names of the weights.

    Args:
        folder: With config.json and safetensors files.
        config: Replaces the folder's. text: Replaces the config's text codec.

    Raises:
        ValueError: No model there, a config that cannot be read, or keys that are missing, unknown or of
            another shape: all of them are listed.
    """
    folder = Path(folder)
    raw = _config_file(folder)
    weights = restored(stored_weights(folder, raw.get("transformers_weights")))
    layout = _layout_of(weights, folder)
    if config is None:
        try:
            if layout == "csm":
                config = config_files.from_dict(CSMConfig, raw)
            elif layout == "sesame":
                config = public_configs.from_sesame(raw)
            else:
                config = public_configs.from_transformers(raw)
        except ValueError as error:
            raise ValueError(f"{folder}: {error}") from error
    config = replace(config, text=text or _text_of(config, folder))
    return StoredModel(layout, config, _our_weights(weights, layout, config, folder))


def write(
    folder: Path | str,
    config: CSMConfig,
    weights: dict[str, Weight],
    layout: Layout,
    *,
    codec_from: Path | str | None = None,
    shard_bytes: int = 50 * 10**9,
) -> None:
    """Writes weights by our names as a folder of a layout; `CSMModel.save_pretrained` says what the rest is.

    Raises:
        ValueError: An unknown layout, one that has no place for what the model computes, or codec_from with
            another layout than "transformers" or without a Mimi.
    """
    if layout not in get_args(Layout):
        raise ValueError(f"layout is {layout!r}: expected one of {', '.join(get_args(Layout))}")
    if codec_from is not None and layout != "transformers":
        raise ValueError(f"codec_from with layout {layout!r}: only 'transformers' holds Mimi, leave it out")
    if layout == "csm":
        named, raw = weights, config_files.to_dict(config)
    else:
        _refuse_what_is_lost(config, weights, layout)
        sized = replace(config, text_vocab_size=weights["text_embedding.weight"].shape[0])
        named = {
            public_name(name, layout): converted(name, weight, layout, config, outwards=True)
            for name, weight in weights.items()
            if not is_added(name)
        }
        codec_config = None
        if codec_from is not None:
            codec, codec_config = _mimi_of(Path(codec_from))
            named.update(codec)
        if layout == "sesame":
            raw = public_configs.to_sesame(sized)
        else:
            raw = public_configs.to_transformers(sized, codec_config)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if config.text not in (*BUILT_IN, "none"):
        target = folder / TOKENIZER
        if not (target.exists() and target.samefile(config.text)):
            shutil.copyfile(config.text, target)
        if layout == "csm":
            raw["text"] = TOKENIZER
    write_weights(folder, named, shard_bytes)
    if layout == "transformers":
        _write_json(folder / "generation_config.json", public_configs.GENERATION)
        companions = COMPANIONS if config.text != "none" else (*COMPANIONS, TOKENIZER)
        for path in [] if codec_from is None else [Path(codec_from) / name for name in companions]:
            if path.is_file():
                shutil.copyfile(path, folder / path.name)
    _write_json(folder / "config.json", raw)


def _write_json(path: Path, value: dict[str, Any]) -> None:
    """Writes a file that is whole or not there."""
    write_atomically(path, json.dumps(value, indent=1) + "\n")


def _our_weights(
    weights: dict[str, Weight], layout: Layout, config: CSMConfig, folder: Path
) -> dict[str, Weight]:
    """The stored weights by our names.

    Raises:
        ValueError: Lists every key that is missing, of another shape, or unknown.
    """
    left, ours = dict(weights), {}
    missing: list[str] = []
    misshapen: list[str] = []
    twin = left.pop(TWIN, None) if layout == "transformers" else None
    stored_dtype = next(iter(weights.values())).dtype
    for name, parameter in on_meta(ConversationNetwork, config).state_dict().items():
        shape = tuple(parameter.shape)
        if layout != "csm" and is_added(name):
            ours[name] = closed(name, shape, stored_dtype)
            continue
        theirs = public_name(name, layout)
        weight = left.pop(theirs, None)
        if twin is not None and name == "audio_embedding.weight":
            theirs, weight = (TWIN, twin) if weight is None else (theirs, _same(weight, twin, theirs))
        if weight is None:
            missing.append(theirs)
        elif weight.shape != shape:
            misshapen.append(f"{theirs} is {list(weight.shape)}, expected {list(shape)}")
        else:
            ours[name] = converted(name, weight, layout, config, outwards=False)
    unknown = [name for name in left if layout != "transformers" or not name.startswith(MIMI)]
    problems = (("missing", missing), ("of another shape", misshapen), ("unknown", unknown))
    if any(names for _, names in problems):
        lines = [f"  {what}: {', '.join(names)}" for what, names in problems if names]
        raise ValueError(
            f"{folder}: the weights (layout {layout!r}) do not fit the config:\n"
            + "\n".join(lines)
            + "\nCheck that config.json belongs to these files, or give the sizes as config="
        )
    return ours


def _same(weight: Weight, twin: Weight, name: str) -> Weight:
    """The audio table where a file holds it twice."""

    def read() -> Tensor:
        table = weight.read()
        if twin.shape != weight.shape or not torch.equal(table, twin.read()):
            raise ValueError(f"{name} and {TWIN} differ: expected one shared audio table, as in csm-1b")
        return table

    return weight._replace(read=read)


def closed(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Weight:
    """Returns a parameter that csm-1b lacks; it changes nothing before it is trained.

    Gates and the heads of prosody, duration and phone durations are zero; the rest is drawn by its name, so
    that every reading gives the same values.
    """

    def read() -> Tensor:
        if group_of(name).closed or is_gate(name) or name.endswith(".bias"):
            return torch.zeros(shape, dtype=dtype)
        if len(shape) == 1:
            return torch.ones(shape, dtype=dtype)
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        return (torch.randn(shape, generator=generator) * 0.02).to(dtype)

    return Weight(shape, dtype, read)


# ---- folders ----


def _config_file(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise ValueError(f"no model in {folder}: expected config.json and model.safetensors there")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}): copy it again") from error
    if not isinstance(raw, dict):
        raise ValueError(f"{path} holds {type(raw).__name__}, expected a JSON object: copy it again")
    return raw


def _layout_of(weights: dict[str, Weight], folder: Path) -> Layout:
    """The layout that has most of the weights' names."""
    layouts: tuple[Layout, ...] = ("csm", "transformers", "sesame")
    names = [group.module for group in GROUPS if group.public is not None and not group.blocks]
    scores = [sum(public_name(name, layout) in weights for name in names) for layout in layouts]
    if not max(scores):
        raise ValueError(
            f"{folder}: weights of no known layout: expected names such as "
            f"{', '.join(public_name('text_embedding.weight', layout) for layout in layouts)}; found "
            f"{', '.join(sorted(weights)[:5]) or 'none'}"
        )
    return layouts[scores.index(max(scores))]


def _text_of(config: CSMConfig, folder: Path) -> str:
    """The config's text codec; a tokenizer.json is looked for in the folder first."""
    if config.text in BUILT_IN:
        return config.text
    name = TOKENIZER if config.text == "none" else Path(config.text).name
    return str(folder / name) if (folder / name).is_file() else config.text


def _refuse_what_is_lost(config: CSMConfig, weights: dict[str, Weight], layout: Layout) -> None:
    """A public layout has no place for open gates or another end of turns."""
    gates = [name for name in weights if is_gate(name)]
    opened = [name for name in gates if bool(weights[name].read().any())]
    if opened:
        raise ValueError(
            f"layout {layout!r} has no place for cross-attention and memory, and these gates are open: "
            f"{', '.join(opened)}. Save with layout='csm', or set them to zero first"
        )
    if config.end_code:
        raise ValueError(
            f"layout {layout!r} ends turns by zeros, this model by code {config.end_code}: save with "
            f"layout='csm'"
        )


def _mimi_of(folder: Path) -> tuple[dict[str, Weight], dict[str, Any]]:
    """Weights and config of the Mimi in a folder of transformers' CSM."""
    raw = _config_file(folder)
    weights = stored_weights(folder, raw.get("transformers_weights"))
    codec = {name: weight for name, weight in weights.items() if name.startswith(MIMI)}
    if not codec:
        raise ValueError(f"codec_from {folder} holds no Mimi: expected weights named {MIMI}* there")
    return codec, raw.get("codec_config") or {"model_type": "mimi"}
