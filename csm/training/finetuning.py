"""Fine-tuning: which parameters are trained, and whether a checkpoint and a corpus fit the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import torch

from csm.data.code_shards import CodeShards, EncodedTurn
from csm.data.dataset import DatasetConfig
from csm.data.turn_table import TurnTable
from csm.model import CSMModel
from csm.network.io import checkpoints
from csm.network.lora import LoRAConfig, add_adapters, is_adapter
from csm.network.model_config import CSMConfig
from csm.network.parameters import ADDED, GATES, PUBLIC_GROUPS, is_in
from csm.system.log import log
from csm.text import EmphasisCodec

# Named parts of a model. "lora" stands for the adapters, which only it adds.
PARTS = ("all", ADDED, GATES, *PUBLIC_GROUPS, "lora")


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """What of the model is trained.

    Attributes:
        train: Parts that are trained: "all"; "backbone", "depth_decoder", "text_embedding",
            "audio_embedding", "codebook0_head"; "added", what csm-1b lacks (cross-attention, memory, prosody
            and duration heads); "gates", the gates of these alone; "lora", adapters on frozen layers.
        freeze: Parts that stay frozen although `train` includes them.
        lora: Sizes and places of the adapters, where `train` has "lora".

    Raises:
        ValueError: An unknown part, none, or "all" beside "lora".
    """

    train: tuple[str, ...] = ("all",)
    freeze: tuple[str, ...] = ()
    lora: LoRAConfig = field(default_factory=LoRAConfig)

    def __post_init__(self) -> None:
        for name in ("train", "freeze"):
            unknown = [part for part in getattr(self, name) if part not in PARTS]
            if unknown:
                raise ValueError(f"{name} has {', '.join(unknown)}: expected some of {', '.join(PARTS)}")
        if not self.train:
            raise ValueError(f"train is empty: expected some of {', '.join(PARTS)}")
        if {"all", "lora"} <= {*self.train} or "lora" in self.freeze:
            raise ValueError(
                "lora is trained beside single parts or alone, not beside all, and not frozen: "
                "expected for example train=lora"
            )

    @property
    def adapts(self) -> bool:
        """Whether adapters are trained."""
        return "lora" in self.train

    def trains(self, name: str) -> bool:
        """Whether the parameter of this name is trained."""
        if is_adapter(name):
            return True
        return is_in(name, self.train) and not is_in(name, self.freeze)

    def trains_added_parts(self) -> bool:
        """Whether anything that csm-1b lacks can come to compute something: its gates are trained."""
        opening = {"all", ADDED, GATES}
        return bool(opening & {*self.train}) and not opening & {*self.freeze}


def make_trainable(model: CSMModel, config: FinetuneConfig) -> None:
    """Adds the adapters and freezes what is not trained; leaves the model in training mode.

    Raises:
        ValueError: Nothing is left to train, or a LoRA target that names no layer.
    """
    if config.adapts:
        add_adapters(model, config.lora)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(config.trains(name))
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(
            f"finetune.train {', '.join(config.train)} without {', '.join(config.freeze)} leaves nothing to "
            f"train: freeze less"
        )
    model.train()


def load_for_training(folder: Path, recipe: CSMConfig, config: FinetuneConfig) -> CSMModel:
    """The model of a folder in any layout, with the recipe's dropout and kinds of memory slots.

    The folder's tokenizer.json is its text codec; the recipe's where there is none, or where that reads
    emphasis and the folder's is the same without: emphasised vowels then start as stressed ones.
    Of the public layouts, cross-attention and memory layers are added where their gates are trained; closed
    ones would compute nothing.

    Raises:
        ValueError: As `csm.network.io.checkpoints.read`, or sizes other than the recipe's: all are listed.
    """
    stored = checkpoints.read(folder)
    require_sizes(stored.config, recipe, folder)
    learns_emphasis = (stored.config.text, recipe.text) == ("phones", "emphasis")
    text = recipe.text if learns_emphasis or stored.config.text == "none" else stored.config.text
    chosen = replace(
        stored.config,
        dropout=recipe.dropout,
        frame_dropout=recipe.frame_dropout,
        memory_kinds=recipe.memory_kinds,
        text=text,
    )
    if stored.layout != "csm":
        layers = without_idle_layers(recipe, config)
        chosen = replace(chosen, cross_layers=layers.cross_layers, memory_layers=layers.memory_layers)
    log_unused(chosen, recipe, folder)
    model = CSMModel.from_pretrained(folder, config=chosen)
    if learns_emphasis:
        start_emphasis(model)
    return model


def log_unused(chosen: CSMConfig, recipe: CSMConfig, folder: Path) -> None:
    """Warns of fields of the recipe's model that the model of a folder replaces."""
    differing = [
        f"model.{item.name} {getattr(chosen, item.name)!r} there, {getattr(recipe, item.name)!r} here"
        for item in fields(CSMConfig)
        if getattr(chosen, item.name) != getattr(recipe, item.name)
    ]
    if differing:
        log.warning(
            "%s: the model keeps its own values where the recipe has others: %s", folder, ", ".join(differing)
        )


@torch.no_grad()
def start_emphasis(model: CSMModel) -> None:
    """Sets the embeddings of emphasised vowels to those of the stressed ones."""
    assert isinstance(model.codec, EmphasisCodec)
    table = model.text_embedding.weight
    for emphasised, stressed in model.codec.stressed_ids().items():
        table[emphasised] = table[stressed]


def without_idle_layers(recipe: CSMConfig, config: FinetuneConfig) -> CSMConfig:
    """The recipe's model as it is made of csm-1b: without added layers, where their gates stay closed."""
    return recipe if config.trains_added_parts() else replace(recipe, cross_layers=(), memory_layers=())


def require_sizes(found: CSMConfig, recipe: CSMConfig, folder: Path) -> None:
    """Checks that a checkpoint has the recipe's sizes.

    Raises:
        ValueError: It has not; every size that differs is listed with its field.
    """
    there, here = _sizes(found), _sizes(recipe)
    if not recipe.text_vocab_size:
        there.pop("text_vocab_size")
    differing = [name for name in there if there[name] != here[name]]
    if differing:
        listed = ", ".join(f"model.{name} {there[name]} there, {here[name]} here" for name in differing)
        raise ValueError(
            f"the checkpoint in {folder} has other sizes than the recipe: {listed}. Give the folder of the "
            f"model that the recipe names, or set these fields"
        )


def _sizes(config: CSMConfig) -> dict[str, object]:
    sizes: dict[str, object] = {}
    names = ("n_layers", "d_model", "n_heads", "n_kv_heads", "d_ff")
    for part, shape in zip(("", "depth_"), config.shapes, strict=True):
        sizes.update({f"{part}{name}": value for name, value in zip(names, shape, strict=True)})
    codes = ("num_codebooks", "codebook_size", "extra_codes", "zeros_end")
    for name in (*codes, "text_vocab_size", "max_speakers"):
        sizes[name] = getattr(config, name)
    sizes["rope_base"], sizes["rope_scaling"] = config.rope_base, config.rope_scaling
    return sizes


def require_speakers(
    source: Path | str,
    speakers: Sequence[str],
    numbers: Mapping[str, int],
    model: CSMModel,
    data: DatasetConfig,
) -> None:
    """Checks the speakers of a corpus, whose `numbers` in the model are given.

    Raises:
        ValueError: One that the text codec has no id for, or excluded ones that the corpus lacks.
    """
    absent = sorted({*data.exclude_speakers} - {*speakers})
    if absent:
        raise ValueError(
            f"data.exclude_speakers has {', '.join(absent)}, not in {source}: expected some of "
            f"{', '.join(speakers[:20])}"
        )
    model.codec.encode_text("a")  # a model without its text tokenizer says so
    highest = max(numbers.values(), default=0)
    if highest in model.config.local_numbers:
        raise ValueError(
            f"{source} has {len(speakers)} speakers, and the model has {model.config.max_speakers} numbers "
            f"without its {model.config.local_speakers} local ones: raise model.max_speakers"
        )
    try:
        # Numbers that a model brings along may be higher than its corpus has speakers.
        model.codec.speaker_id(highest)
    except ValueError as error:
        raise ValueError(
            f"{source} has {len(speakers)} speakers, too many for the model (model.max_speakers): {error}"
        ) from error


def require_fit(tables: Sequence[TurnTable], model: CSMModel, data: DatasetConfig) -> None:
    """Checks the turns of a training against a model before any step.

    Raises:
        ValueError: Chunks beyond the context, a text longer than the context, codes of another tokenizer, or
            a conversation of which no turn has voice.
    """
    config, facts = model.config, tables[0].facts
    if data.max_rows > config.max_context:
        raise ValueError(
            f"data.max_rows is {data.max_rows}: expected at most the model's max_context {config.max_context}"
        )
    for table in tables:
        _require_texts(table, config)
    silent = sorted({name for table in tables for name in table.facts.silent})
    if silent:
        raise ValueError(
            f"{len(silent)} conversations of {facts.source} have no voice ({', '.join(silent[:5])}): encode "
            f"the corpus with launch/encode_corpus.py, or take them out of its manifest"
        )
    _require_codes(tables[0].encoded, config)


def _require_texts(table: TurnTable, config: CSMConfig) -> None:
    long = np.flatnonzero(table.arrays["text_rows"] + 2 > config.max_context)
    if len(long):
        names = ", ".join(table.id_of(number) for number in long[:5].tolist())
        raise ValueError(
            f"the text of {len(long)} turns of the {table.facts.split} split ({names}) is longer than the "
            f"context of {config.max_context} rows: split them in the recordings' .json"
        )


def _require_codes(encoded: Mapping[str, EncodedTurn], config: CSMConfig) -> None:
    if isinstance(encoded, CodeShards):
        found = [(f"shard {s.name}", s.codebooks, s.lowest, s.highest) for s in encoded.shards]
    else:
        codes = {name: turn.codes for name, turn in encoded.items() if turn.codes.numel()}
        found = [(f"turn {n}", c.shape[0], int(c.min()), int(c.max())) for n, c in codes.items()]
    for name, codebooks, low, high in found:
        if codebooks < config.num_codebooks:
            raise ValueError(
                f"{name} has {codebooks} codebooks, the model {config.num_codebooks}: encode the corpus with "
                f"the model's own tokenizer"
            )
        if low < 0 or high >= config.codebook_size:
            raise ValueError(
                f"{name}: codes range over {low}..{high}, expected 0..{config.codebook_size - 1}: encode the "
                f"corpus with the model's own tokenizer"
            )
