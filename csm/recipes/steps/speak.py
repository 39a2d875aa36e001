"""Step: speaks with the trained model of a run."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch

from csm import config as config_files
from csm.data.code_shards import read_code_shards, read_index
from csm.data.manifest import read_corpus
from csm.generation.demonstration import Cast, demonstrate
from csm.generation.sampling import SamplingConfig
from csm.generation.talker import Talker, make_ready
from csm.generation.voices import Voice, main_speaker, minutes_of_speakers, voice_of, with_manner
from csm.network.csm_model import CSMModel
from csm.recipes.encoding import sha256_of_weights
from csm.recipes.run_files import WEIGHTS, load_run, tokenizer_folder
from csm.recipes.steps.train_model import numbers_of_speakers
from csm.system.files import file_sha256
from csm.system.log import log, progress_of
from csm.tokenizer.conversational_rvq import ConversationalRVQ


def trained_cast(
    folder: Path, device: torch.device, *, sampling: SamplingConfig | None = None, corpus: Path | None = None
) -> Cast:
    """Returns the trained model of a run with its tokenizer, its corpus and the voices it was trained on.

    Args:
        folder: Folder of a finished model run, with codes/ in it.
        device: Where the model runs.
        sampling: None takes the recipe's.
        corpus: Where the corpus lies now; None takes the recipe's place.

    Raises:
        ValueError: The run is not finished, or something of it is missing; says what makes it.
    """
    run = load_run(folder)
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"the training in {folder} is not finished: the command that began it resumes it")
    codes, of_tokenizer = folder / "codes", tokenizer_folder(folder)
    material, encoded = read_corpus(corpus or run.corpus), read_code_shards(codes)
    tokenizer = ConversationalRVQ.from_pretrained(of_tokenizer).to(device)
    index = read_index(codes) or {}
    if index.get("tokenizer_sha256") != sha256_of_weights(of_tokenizer):
        raise ValueError(
            f"{codes} was not made by the tokenizer in {of_tokenizer}: the voices would not fit; encode the "
            f"corpus with it, or put back the tokenizer of the codes"
        )
    model = CSMModel.from_pretrained(folder).to(device)
    make_ready(model, tokenizer)
    numbers = numbers_of_speakers(run, material)

    @cache
    def voice(name: str) -> Voice:
        # An unknown name is refused by `voice_of`, which lists those that can be had.
        return with_manner(voice_of(material, encoded, name, numbers.get(name, -1)), material, tokenizer)

    return Cast(
        model=model, tokenizer=tokenizer, corpus=material, voice=voice, sampling=sampling or run.sampling
    )


def trained_talker(folder: Path, device: torch.device, *, corpus: Path | None = None) -> Talker:
    """Returns the trained model of a run with all voices that it was trained on, the main one first.

    Raises:
        ValueError: As `trained_cast`.
    """
    cast, run = trained_cast(folder, device, corpus=corpus), load_run(folder)
    main = main_speaker(cast.corpus)
    names = [name for name in minutes_of_speakers(cast.corpus) if name not in run.data.exclude_speakers]
    ordered = sorted(names, key=lambda name: (name != main, name))
    voices = {name: cast.voice(name) for name in progress_of(ordered, "voices", len(ordered), unit="voice")}
    return Talker(model=cast.model, tokenizer=cast.tokenizer, voices=voices, sampling=cast.sampling)


def show(folder: Path, cast: Cast, output: Path) -> int:
    """Makes the demonstration of a run, or resumes it; returns how many lines and dialogues are new."""
    origin = {
        "model_sha256": file_sha256(folder / WEIGHTS),
        "tokenizer_sha256": sha256_of_weights(tokenizer_folder(folder)),
        "corpus": cast.corpus.info.get("name", str(cast.corpus.root)),
        "sampling": config_files.to_dict(cast.sampling),
    }
    return demonstrate(cast, output, origin, log.info)
