"""Step: trains the model of a recipe on encoded conversations."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csm import config as config_files
from csm.data.code_shards import (
    EncodedTurn,
    codes_digests,
    read_alignment,
    read_code_shards,
    read_code_vectors,
    read_index,
)
from csm.data.corpus_digests import corpus_digests
from csm.data.dataset import ConversationDataset
from csm.data.manifest import Corpus, read_corpus
from csm.data.speakers import speaker_numbers
from csm.generation.voices import known_numbers
from csm.model import CSMModel
from csm.network.code_embedding_init import start_from_code_vectors
from csm.network.execution import apply_execution
from csm.network.model_config import CSMConfig
from csm.recipes.run_config import RunConfig
from csm.recipes.run_files import found_complete, start_digests, start_folder
from csm.recipes.steps.finish_model import finish_model
from csm.recipes.steps.voice_samples import voice_samples
from csm.system.log import log
from csm.text import ByteCodec
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
    corpus, encoded = read_corpus(run.corpus), read_code_shards(codes)
    model = start_model(run)
    require_fit(corpus, encoded, model, run.data, numbers_of_speakers(run, corpus))
    vectors = read_code_vectors(codes)
    if run.model_start == "scratch" and vectors is not None:
        start_from_code_vectors(model, vectors)
    # ZeRO-3 changes the parameters: their names are listed before.
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    apply_execution(model, run.execution, zero_stage=run.training.zero_stage)
    if not corpus.turns("validation"):
        log.info("%s has no validation turns: the validation loss is that of training turns", corpus.root)
    inputs = {"corpus": run.corpus, "codes": str(codes.absolute()), "tokenizer": index.get("tokenizer")}
    speaker = None
    if distributed.rank == 0:
        speaker = voice_samples(run, corpus, encoded, numbers_of_speakers(run, corpus), inputs["tokenizer"])
    task = model_task(run, model, (corpus, encoded), codes, distributed.device, speaker)

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
    material: tuple[Corpus, dict[str, EncodedTurn]],
    codes: Path,
    device: torch.device,
    speaker: SampleSpeaker | None = None,
) -> ModelTask:
    """Returns what a recipe trains a model on: its losses on a corpus and the turns' codes.

    Args:
        run, model: Recipe and model.
        material: The corpus, and `read_code_shards(codes)`.
        codes: Folder of the alignment and the code vectors, if there are any.
        device: Where validation runs.
        speaker: Speaks lines to listen to at each validation.

    Raises:
        ValueError: Codes that do not fit the model, or an alignment of another text codec.
    """
    corpus, encoded = material
    dataset = partial(
        ConversationDataset,
        corpus,
        encoded,
        codec=model.codec,
        num_codebooks=model.config.num_codebooks,
        end_code=model.config.end_code,
        config=run.data,
        seed=run.training.seed,
        speakers=numbers_of_speakers(run, corpus),
        ends=read_alignment(codes, model.config.text) if isinstance(model.codec, ByteCodec) else None,
    )
    # A few recordings of one's own may all be for training: the split follows the hash of their names.
    watched = "validation" if corpus.turns("validation") else "train"
    return ModelTask(
        model,
        dataset("train", micro_batches=run.training.micro_batches),
        dataset(watched, micro_batches=1),
        run.loss,
        device=device,
        vectors=read_code_vectors(codes),
        speaker=speaker,
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


def numbers_of_speakers(run: RunConfig, corpus: Corpus) -> dict[str, int]:
    """Returns the model's number of every speaker of a corpus; those of the start's voice keep theirs."""
    known: dict[str, int] = {}
    if run.model_start != "scratch":
        known = known_numbers(start_folder(run.model_start, "voice"))
    return speaker_numbers(corpus.speakers(), known)


def trained_shape(run: RunConfig) -> CSMConfig:
    """Returns the config of `start_model` without reading files: a folder counts as a public layout."""
    return run.model if run.model_start == "scratch" else without_idle_layers(run.model, run.finetune)
