"""Step: encodes a recipe's corpus with a trained tokenizer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from csm.data.alignment_cache import aligned_corpus, code_digest
from csm.data.code_companions import VECTORS_NAME, aligned_text, write_alignment, write_code_vectors
from csm.data.code_shards import CodeShards, read_code_shards, read_index
from csm.data.manifest import SPLITS, Corpus, read_corpus
from csm.recipes.encoding import codebook_report, sha256_of_weights
from csm.recipes.run_config import RunConfig
from csm.recipes.sharded_encoding import (
    PlannedShard,
    encode_shards,
    finish_index,
    is_written,
    keyed_turns,
    planned_shards,
    remove_earlier,
)
from csm.system.digests import damage, record_digests, sha256_of_json
from csm.system.files import write_atomically
from csm.system.log import log
from csm.system.threads import one_thread
from csm.text import ByteCodec, aligned_as, text_codec
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.opening import VoiceTokenizer, open_tokenizer
from csm.training.distributed import DistributedContext

# Usage of every codebook over the corpus, beside the codes.
USAGE_NAME = "codebooks.json"


@torch.no_grad()
def encode_corpus(
    run: RunConfig, tokenizer_folder: Path, output: Path, distributed: DistributedContext
) -> int:
    """Encodes every turn of the recipe's corpus to code shards; returns how many.

    Finished shards are kept, and of changed ones the turns whose sound is the same. Each rank encodes its
    share; the first one then writes the rest: the index, the alignment of texts (for a model that reads
    letters or phones) and, of a tokenizer of ours, the vectors of its codes and their usage.

    Raises:
        ValueError: No corpus or tokenizer, or `output` holds codes of another corpus or tokenizer.
    """
    corpus = read_corpus(run.corpus)
    if not corpus.turns("validation"):
        log.warning(
            "%s has no validation turns: a training would be watched on what it trains on; prepare it with "
            "--validation",
            corpus.root,
        )
    tokenizer = open_tokenizer(tokenizer_folder, run.model.num_codebooks).to(distributed.device)
    description = {
        "corpus": corpus.info.get("name", str(corpus.root)),
        "tokenizer_sha256": sha256_of_weights(tokenizer_folder),
        "time_shifts": run.data.time_shifts,
    }
    plans = planned_shards(corpus, tokenizer, str(description["tokenizer_sha256"]), run.data.time_shifts)
    require_same_material(output, corpus, plans, description)
    encode_shards(corpus, tokenizer, plans, output, rank=distributed.rank, ranks=distributed.size)
    if distributed.rank == 0:
        description["tokenizer"] = str(tokenizer_folder.absolute())
        steps = (
            write_codes_index(output, plans, description),
            write_text_alignment(run, corpus, plans, tokenizer, output),
            write_codebooks(tokenizer, output),
        )
        remove_earlier(output, plans)
        if not any(steps):
            log.info("%s: this corpus is encoded (%d turns); nothing to do", output, len(corpus.turns()))
    return len(corpus.turns())


def require_same_material(
    output: Path, corpus: Corpus, plans: Sequence[PlannedShard], description: dict[str, object]
) -> None:
    """Refuses a folder with codes of another tokenizer, or of a corpus that has no turn in common.

    Raises:
        ValueError: It is one.
    """
    found = read_index(output)
    if found is None:
        return
    differing = [name for name, value in description.items() if found.get(name) != value]
    names = {plan.name for plan in plans}
    if not differing and not any(shard.name in names for shard in found["shards"]):
        shards = CodeShards(output, found["shards"])
        keys = (key for plan in plans for _, key in keyed_turns(corpus, plan))
        if not any(shards.place_of_key(key) for key in keys):
            differing.append("all turns")
    if differing:
        raise ValueError(
            f"{output} holds codes of another run: {', '.join(differing)} differ; choose another --output, "
            f"or delete it if no model needs it"
        )


def write_codes_index(output: Path, plans: Sequence[PlannedShard], description: dict[str, object]) -> bool:
    """Writes the index once all shards are there; returns False where it is written."""
    found = read_index(output)
    if found is not None and [shard.name for shard in found["shards"]] == [plan.name for plan in plans]:
        if all(is_written(output / plan.name) for plan in plans):
            return False
    finish_index(output, plans, description)
    return True


def write_text_alignment(
    run: RunConfig, corpus: Corpus, plans: Sequence[PlannedShard], tokenizer: VoiceTokenizer, output: Path
) -> bool:
    """Writes when each letter or phone is said; returns False where it is written or the text has none."""
    codec = text_codec(aligned_as(run.model.text), run.model.max_speakers)
    if not isinstance(codec, ByteCodec):
        return False
    names = [plan.name for plan in plans]
    texts = (turn.text for split in SPLITS for turn in corpus.turns(split))
    material = sha256_of_json(iter([names, texts, code_digest()]))
    name = aligned_as(run.model.text)
    if aligned_text(output) == (name, material):
        return False
    with one_thread():
        ends = aligned_corpus(corpus, tokenizer.config.sample_rate, codec, name)
    rate = tokenizer.config.frame_rate
    frames = ((turn, seconds * rate) for turn, seconds in ends.items())
    write_alignment(output, frames, name, material)
    return True


def write_codebooks(tokenizer: VoiceTokenizer, output: Path) -> bool:
    """Writes the vectors of the codes and their usage; returns False where they are there, or for Mimi."""
    names = (VECTORS_NAME, USAGE_NAME)
    if not isinstance(tokenizer, ConversationalRVQ):
        return False
    shards = read_code_shards(output)
    material = hashlib.sha256("".join(shard.name for shard in shards.shards).encode()).hexdigest()
    if all(damage(output / name, listed=True) is None for name in names):
        if json.loads((output / USAGE_NAME).read_text(encoding="utf-8")).get("material") == material:
            return False
    # Of all codebooks, as the shards: a model of any number of them may be trained from these codes.
    write_code_vectors(output, tokenizer.code_vectors().cpu())
    parts = (version.T for n in range(len(shards.shards)) for version in shards.tensors(n)["codes"])
    report = {**codebook_report(tokenizer, parts), "material": material}
    write_atomically(output / USAGE_NAME, json.dumps(report) + "\n")
    record_digests(output, [USAGE_NAME])
    return True
