"""Step: encodes a recipe's corpus with a trained tokenizer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from csm.data.code_shards import (
    VECTORS_NAME,
    aligned_text,
    read_code_shards,
    read_index,
    shifted_id,
    write_alignment,
    write_code_shards,
    write_code_vectors,
)
from csm.data.forced_alignment import align_corpus
from csm.data.manifest import Corpus, read_corpus
from csm.recipes.encoding import Tokenizer, codebook_report, encoded_turns, open_tokenizer, sha256_of_weights
from csm.recipes.run_config import RunConfig
from csm.system.digests import damage
from csm.system.files import write_atomically
from csm.system.log import log
from csm.system.threads import one_thread
from csm.text import ByteCodec, text_codec
from csm.tokenizer.conversational_rvq import ConversationalRVQ

# Usage of every codebook over the corpus, beside the codes.
USAGE_NAME = "codebooks.json"


@torch.no_grad()
def encode_corpus(run: RunConfig, tokenizer_folder: Path, output: Path, device: torch.device) -> int:
    """Encodes every turn of the recipe's corpus to code shards; returns how many. Finished shards are kept.

    `output` then holds the shards with their index, the alignment of texts (for a model that reads letters or
    phones) and, of a tokenizer of ours, the vectors of its codes and their usage.

    Raises:
        ValueError: No corpus or tokenizer, or `output` holds codes of another corpus or tokenizer.
    """
    corpus = read_corpus(run.corpus)
    tokenizer = open_tokenizer(tokenizer_folder, run.model.num_codebooks).to(device)
    steps = (
        write_codes(run, corpus, tokenizer, tokenizer_folder, output),
        write_text_alignment(run, corpus, tokenizer, output),
        write_codebooks(run, tokenizer, output),
    )
    if not any(steps):
        log.info("%s: this corpus is encoded (%d turns); nothing to do", output, len(corpus.turns()))
    return len(corpus.turns())


def write_codes(
    run: RunConfig, corpus: Corpus, tokenizer: Tokenizer, tokenizer_folder: Path, output: Path
) -> bool:
    """Writes the code shards; returns False where they are there.

    Raises:
        ValueError: The folder holds codes of another corpus or tokenizer.
    """
    shifts = run.data.time_shifts
    description: dict[str, Any] = {
        "corpus": corpus.info.get("name", str(corpus.root)),
        "tokenizer_sha256": sha256_of_weights(tokenizer_folder),
    }
    names = {turn.id for turn in corpus.turns()}
    names |= {shifted_id(turn.id, shift) for turn in corpus.turns("train") for shift in range(shifts)}
    found = read_index(output)
    if found is None:
        description["tokenizer"] = str(tokenizer_folder.absolute())
        write_code_shards(output, encoded_turns(corpus, tokenizer, shifts), description)
        return True
    there = found["turns"]
    assert isinstance(there, dict)
    differing = [name for name, value in description.items() if found.get(name) != value]
    differing += ["turns"] if set(there) != names else []
    if differing:
        raise ValueError(
            f"{output} holds codes of another run: {', '.join(differing)} differ; choose another --output, "
            f"or delete it if no model needs it"
        )
    return False


def write_text_alignment(run: RunConfig, corpus: Corpus, tokenizer: Tokenizer, output: Path) -> bool:
    """Writes when each letter or phone is said; returns False where it is written or the text has none."""
    codec = text_codec(run.model.text, run.model.max_speakers)
    if not isinstance(codec, ByteCodec) or aligned_text(output) == run.model.text:
        return False
    with one_thread():
        ends = align_corpus(corpus, tokenizer.config.sample_rate, codec)
    rate = tokenizer.config.frame_rate
    write_alignment(output, {turn: seconds * rate for turn, seconds in ends.items()}, run.model.text)
    return True


def write_codebooks(run: RunConfig, tokenizer: Tokenizer, output: Path) -> bool:
    """Writes the vectors of the codes and their usage; returns False where they are there, or for Mimi."""
    complete = damage(output / VECTORS_NAME, listed=True) is None and (output / USAGE_NAME).is_file()
    if complete or not isinstance(tokenizer, ConversationalRVQ):
        return False
    write_code_vectors(output, tokenizer.code_vectors()[: run.model.num_codebooks].cpu())
    codes = [turn.codes.long() for turn in read_code_shards(output).values()]
    write_atomically(output / USAGE_NAME, json.dumps(codebook_report(tokenizer, codes)) + "\n")
    return True
