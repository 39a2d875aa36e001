"""A field of a recipe exists because a recipe or a preset sets it, or because a user needs it."""

from __future__ import annotations

import ast
import dataclasses
import typing
from collections.abc import Iterable
from pathlib import Path

import pytest

from csm.recipes.run_config import RunConfig

ROOT = Path(__file__).resolve().parents[2]
SOURCES = (
    *ROOT.glob("csm/recipes/**/*.py"),
    *(ROOT / "csm" / part for part in ("tokenizer/presets.py", "network/presets.py")),
    ROOT / "csm/network/io/public_configs.py",
)
# Fields that no recipe sets: class.field -> the user who sets it. Each default is what all recipes have.
USERS = {
    "RunConfig.teacher": "has a WavLM, HuBERT or wav2vec2 on disk",
    "RunConfig.teacher_features": "chooses which layers of the teacher are learned",
    "RunConfig.recogniser": "has another Whisper on disk, or wants a semantic encoder without one",
    "RunConfig.semantic_start": "names the semantic tokenizer that csm train-semantic has written",
    "TokenizerConfig.frame_rate": "trades rate for length; part of the shape that config.json states",
    "RunConfig.encoder_frozen": "recovers phases behind a semantic encoder, whose codes predict the latent",
    "TokenizerConfig.window_hops": "has another STFT; part of the shape that config.json states",
    "TokenizerConfig.expansion": "has wider blocks; part of the shape that config.json states",
    "TokenizerConfig.attention_frames": "has longer attention; part of the shape that config.json states",
    "TokenizerConfig.contrast_bins": "recovers phases from another STFT; part of what config.json states",
    "TokenizerConfig.semantic_width": "has a recogniser of another size",
    "TokenizerConfig.semantic_heads": "has a recogniser of another size",
    "TokenizerConfig.semantic_past_frames": "trades the context of semantic codes for memory",
    "UtteranceConfig.gain_db": "has recordings of one level, which need none of it",
    "UtteranceConfig.synthetic_times": "has few hours of synthetic speech beside many of real speech",
    "TokenizerLossConfig.envelope": "recovers phases at 24 kHz, where the envelope is what codes lack",
    "TokenizerLossConfig.vocoder": "balances the losses of a tokenizer with a vocoder",
    "TokenizerLossConfig.speaker": "balances the losses of a tokenizer",
    "TokenizerLossConfig.emotion": "balances the losses of a tokenizer",
    "TokenizerLossConfig.distillation": "balances the losses of a tokenizer with a teacher",
    "TokenizerLossConfig.discriminator_rate": "balances decoder and discriminators: see the hinge loss",
    "TokenizerLossConfig.feature_matching": "balances the losses of a tokenizer",
    "TokenizerLossConfig.prediction": "predicts acoustic latents from semantic codes",
    "SemanticLossConfig.phones": "balances the losses of a semantic tokenizer",
    "SemanticLossConfig.letters": "balances the losses of a semantic tokenizer",
    "SemanticLossConfig.recogniser": "balances the losses of a semantic tokenizer",
    "SemanticLossConfig.features": "balances the losses of a semantic tokenizer",
    "SemanticLossConfig.commitment": "balances the losses of a semantic tokenizer",
    "SemanticLossConfig.quantizer_dropout": "trains fewer codebooks",
    "SemanticLossConfig.decay": "has batches of another size: codebooks average over 1 / (1 - decay) steps",
    "SemanticLossConfig.revive_below": "has batches of another size",
    "TrainingConfig.clip": "sees gradients of another size in metrics.jsonl",
    "TrainingConfig.keep_checkpoints": "has a small disk",
    "TrainingConfig.tracker": "logs to trackio or wandb",
    "TrainingConfig.seed": "repeats a training with other random numbers",
    "TeacherConfig.first_layer": "chooses which layers of the teacher are learned",
    "TeacherConfig.last_layer": "chooses which layers of the teacher are learned",
    "CSMConfig.memory_kinds": "measures what the semantic and the style slots are worth, each alone",
    "DatasetConfig.past_gradient_turns": "trades memory of the GPU for gradients into older turns",
    "LossConfig.codebook0": "balances the losses of a model",
    "LossConfig.pace": "balances the losses of a model",
    "LossConfig.label_smoothing": "trains on few minutes of speech",
    "FinetuneConfig.lora": "fine-tunes with adapters: docs/finetune.md",
    "LoRAConfig.rank": "fine-tunes with adapters: docs/finetune.md",
    "LoRAConfig.alpha": "fine-tunes with adapters: docs/finetune.md",
    "LoRAConfig.targets": "fine-tunes with adapters: docs/finetune.md",
    "LoRAConfig.inside": "fine-tunes with adapters: docs/finetune.md",
    "ExecutionConfig.compile": "trains for hours on a GPU",
    "ExecutionConfig.float8": "trains large models on a GPU that multiplies in float8: docs/GPU.md",
    "RunConfig.predicting_voice": "trains a decoder on a voice's predictions: csm/weights/NOTICE.md",
    "SamplingConfig.decoded_codebooks": "compares the sound of fewer codebooks",
    "SamplingConfig.depth_temperature": "varies the sound of a voice without its words",
    "SamplingConfig.extra_codes": "compares csm-1b with its public generators",
    "SamplingConfig.speed": "speaks faster or slower: csm speak --speed",
    "SamplingConfig.shortest": "has a voice whose turns end too early",
    "SamplingConfig.seed": "wants another reading of the same text",
}


def config_classes(cls: type = RunConfig) -> dict[str, type]:
    """The config and all that it holds, by name."""
    found = {cls.__name__: cls}
    for hint in typing.get_type_hints(cls).values():
        if dataclasses.is_dataclass(hint):
            found |= config_classes(hint)
    return found


def fields_that_are_set(sources: Iterable[Path], classes: Iterable[str]) -> set[str]:
    """Returns CLASS.field of every keyword of a class, and .field of keys and of keywords of `replace`.

    A key is one of a dict, or part of an assignment such as "training.steps=3".
    """
    names: set[str] = set()
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                owner = ast.unparse(node.func).rpartition(".")[2]
                keywords = {keyword.arg for keyword in node.keywords if keyword.arg}
                if owner in classes:
                    names |= {f"{owner}.{keyword}" for keyword in keywords}
                elif owner == "replace":
                    names |= {f".{keyword}" for keyword in keywords}
            elif isinstance(node, ast.Dict):
                names |= {f".{key.value}" for key in node.keys if isinstance(key, ast.Constant)}
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "=" in node.value:
                names.add("." + node.value.partition("=")[0].rpartition(".")[2])
    return names


CONFIGS = config_classes()
SET = fields_that_are_set((path for path in SOURCES if path.name != "run_config.py"), CONFIGS)


def unset(name: str) -> set[str]:
    """Returns the fields of a config that no recipe and no preset sets."""
    fields = (field.name for field in dataclasses.fields(CONFIGS[name]))
    return {f"{name}.{field}" for field in fields if not {f"{name}.{field}", f".{field}"} & SET}


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_every_field_is_set_by_a_recipe_a_preset_or_a_user(name: str) -> None:
    unused = unset(name) - USERS.keys()
    assert not unused, (
        f"{sorted(unused)} are set by no recipe or preset: make them constants, or say for whom"
    )


def test_no_field_is_excused_that_is_gone_or_set() -> None:
    assert not USERS.keys() - {field for name in CONFIGS for field in unset(name)}


def test_a_field_that_nothing_sets_is_found() -> None:
    assert "RunConfig" in CONFIGS and "LoRAConfig" in CONFIGS
    assert "DatasetConfig.rows_per_micro_batch" in SET and "DatasetConfig.past_gradient_turns" not in SET
