"""Step: speaks with the trained model of a run."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import torch

from csm import config as config_files
from csm.data.code_shards import read_code_shards, read_index
from csm.data.manifest import Corpus, read_corpus
from csm.data.speakers import speaker_numbers
from csm.generation.corpus_voices import CorpusVoices
from csm.generation.sampling import SamplingConfig
from csm.generation.speech_folder import write_speech_folder
from csm.generation.talker import Talker
from csm.model import CSMModel
from csm.pronunciation import is_word
from csm.recipes.encoding import sha256_of_weights
from csm.recipes.run_files import WEIGHTS, codes_folder, load_run, tokenizer_folder
from csm.recipes.steps.turn_tables import known_speakers
from csm.system.files import file_sha256
from csm.system.log import log
from csm.tokenizer.opening import open_tokenizer
from csm.word_search import WordPairs


def trained_talker(
    folder: Path,
    device: torch.device,
    *,
    sampling: SamplingConfig | None = None,
    corpus: Path | None = None,
    all_voices: bool = False,
) -> Talker:
    """Returns the trained model of a run folder with its tokenizer and a voice for each trained speaker.

    Args:
        folder: Folder of a finished model run, with codes/ in it.
        device: Device of model and tokenizer.
        sampling: Sampling settings; None takes the recipe's.
        corpus: Folder of the corpus; None takes the recipe's.
        all_voices: Whether all voices are computed now, with a progress bar, instead of when they are first
            used.

    Raises:
        ValueError: The run is not finished, or something of it is missing; says what makes it.
    """
    run = load_run(folder)
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"the training in {folder} is not finished: the command that began it resumes it")
    codes, of_tokenizer = codes_folder(folder), tokenizer_folder(folder)
    material, encoded = run_corpus(folder, corpus), read_code_shards(codes)
    tokenizer = open_tokenizer(of_tokenizer, run.model.num_codebooks).to(device)
    index = read_index(codes) or {}
    if index.get("tokenizer_sha256") != sha256_of_weights(of_tokenizer):
        raise ValueError(
            f"{codes} was not made by the tokenizer in {of_tokenizer}: the voices would not fit; encode the "
            f"corpus with it, or put back the tokenizer of the codes"
        )
    model = CSMModel.from_pretrained(folder)
    numbers = speaker_numbers(material.speakers(), known_speakers(run))
    voices = CorpusVoices(material, encoded, numbers, tokenizer, without=run.data.exclude_speakers)
    return Talker(
        model=model.to(device),
        tokenizer=tokenizer,
        voices=voices.computed() if all_voices else voices,
        sampling=sampling or run.sampling,
        words=None if model.letter_head is None else _words(material, run.data.exclude_speakers),
    )


def _words(corpus: Corpus, without: Collection[str]) -> WordPairs:
    """Words of the texts that were trained on, and their pairs."""
    turns = (turn for turn in corpus.turns("train") if turn.speaker not in without)
    return WordPairs.of((turn.text for turn in turns), is_word)


def run_corpus(folder: Path, corpus: Path | None = None) -> Corpus:
    """Returns the corpus that a run was trained on; `corpus` is its folder if it has moved."""
    return read_corpus(corpus or load_run(folder).corpus).held()


def speak_lines(folder: Path, talker: Talker, corpus: Corpus, output: Path) -> int:
    """Writes the speech folder of a run, or resumes it; returns the number of new lines and dialogues."""
    origin = {
        "model_sha256": file_sha256(folder / WEIGHTS),
        "tokenizer_sha256": sha256_of_weights(tokenizer_folder(folder)),
        "corpus": corpus.info.get("name", str(corpus.root)),
        "sampling": config_files.to_dict(talker.sampling),
    }
    return write_speech_folder(talker, corpus, output, origin, log.info)
