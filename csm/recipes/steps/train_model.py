"""Step: trains the model of a recipe on encoded conversations."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csm import config as config_files
from csm.data.code_companions import read_code_vectors
from csm.data.code_shards import codes_digests, read_code_shards, read_index
from csm.data.corpus_digests import corpus_digests
from csm.data.dataset import ConversationDataset
from csm.data.turn_table import TurnTable
from csm.model import CSMModel
from csm.network.code_embedding_init import start_from_code_vectors
from csm.network.execution import apply_execution
from csm.network.model_config import CSMConfig
from csm.recipes.run_config import RunConfig
from csm.recipes.run_files import found_complete, start_digests, start_folder
from csm.recipes.steps.finish_model import finish_model
from csm.recipes.steps.turn_tables import training_tables
from csm.recipes.steps.voice_samples import voice_samples
from csm.system.log import log
from csm.training.distributed import start_distributed
from csm.training.finetuning import load_for_training, make_trainable, require_fit, without_idle_layers
from csm.training.loop import train
from csm.training.model_task import ModelTask, SampleSpeaker
from csm.training.reproducibility import seed_everything
from csm.training.run_folder import require_same_run


def train_model(run: RunConfig, codes: Path, output: Path, device: torch.device) -> Path:
    """Trains the model of a recipe on encoded conversations; leaves config.json and model.safetensors.

    Adapters are merged into these and also left alone in adapter/, in peft's format.

    Raises:
        ValueError: No corpus or codes, some that do not fit the model, or `output` belongs to another run.
    """
    index: dict[str, Any] = read_index(codes) or {}
    # Recipe and tokenizer identify the run; the tokenizer's folder is kept in run.json and not compared.
    description = {
        "recipe": run.recipe,
        "run": config_files.to_dict(run),
        "tokenizer_sha256": index.get("tokenizer_sha256"),
    }
    materials = corpus_digests(run.corpus) | codes_digests(codes)
    materials |= start_digests("model_start", run.model_start)
    require_same_run(output, description, run.training, materials)
    distributed = start_distributed(device.type)
    if found_complete(output, run.training.steps):
        return output
    encoded = read_code_shards(codes)
    model = start_model(run)
    tables = training_tables(run, codes, encoded, model, distributed)
    require_fit(list(tables.values()), model, run.data)
    vectors = read_code_vectors(codes)
    if run.model_start == "scratch" and vectors is not None:
        start_from_code_vectors(model, vectors)
    # ZeRO-3 changes the parameters: their names are listed before.
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    stage = run.training.zero_stage
    apply_execution(model, run.execution, zero_stage=stage, device=distributed.device)
    inputs = {"corpus": run.corpus, "codes": str(codes.absolute()), "tokenizer": index.get("tokenizer")}
    speaker = None
    if distributed.rank == 0 and run.training.samples:
        speaker = voice_samples(run, codes, encoded, tables["train"].numbers, inputs["tokenizer"])
    task = model_task(run, model, tables, vectors, distributed.device, speaker)

    def finish(weights: dict[str, dict[str, Tensor]]) -> list[Path]:
        return finish_model(run, task, weights["model"], trained, output)

    return train(
        task,
        run.training,
        output,
        run_description=description,
        device=device.type,
        inputs=inputs,
        materials=materials,
        finish=finish,
    )


def model_task(
    run: RunConfig,
    model: CSMModel,
    tables: Mapping[str, TurnTable],
    vectors: Tensor | None,
    device: torch.device,
    speaker: SampleSpeaker | None = None,
) -> ModelTask:
    """Returns what a recipe trains a model on: its losses on the turns' codes.

    Args:
        run, model: Recipe and model.
        tables: Turns that are trained on, "train", and those whose loss is watched, "watched".
        vectors: Those of the codes, if there are any.
        device: Where validation runs.
        speaker: Speaks lines to listen to at each validation.
    """
    dataset = partial(
        ConversationDataset,
        codec=model.codec,
        num_codebooks=model.config.num_codebooks,
        end_code=model.config.end_code,
        config=run.data,
        seed=run.training.seed,
        local_numbers=model.config.local_numbers,
    )
    train_data = dataset(tables["train"], micro_batches=run.training.micro_batches)
    if (long := train_data.too_long).turns:
        log.warning(
            "train: %d turns (%.1f minutes) have more than data.max_rows = %d rows, so they are context and "
            "never a target: %s",
            long.turns,
            long.frames / run.tokenizer.frame_rate / 60,
            run.data.max_rows,
            ", ".join(long.ids) + (", ..." if long.turns > len(long.ids) else ""),
        )
    watched = dataset(tables["watched"], micro_batches=1)
    return ModelTask(
        model,
        train_data,
        watched,
        run.loss,
        device=device,
        vectors=vectors,
        speaker=speaker,
        fixed_shapes=run.execution.fixed_shapes,
    )


def start_model(run: RunConfig) -> CSMModel:
    """Returns the model that a recipe starts from, what it does not train frozen.

    Raises:
        ValueError: The folder holds no model or one of other sizes, or nothing of it is trained.
    """
    seed_everything(run.training.seed, "model")
    if run.model_start == "scratch":
        model = CSMModel(run.model)
    else:
        model = load_for_training(start_folder(run.model_start, "voice"), run.model, run.finetune)
    make_trainable(model, run.finetune)
    return model


def trained_shape(run: RunConfig) -> CSMConfig:
    """Returns the config of `start_model` without reading files: a folder counts as a public layout."""
    return run.model if run.model_start == "scratch" else without_idle_layers(run.model, run.finetune)
