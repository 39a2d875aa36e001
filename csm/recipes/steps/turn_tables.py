"""Part of a step: the tables of turns that a model is trained on, made once and mapped by every rank."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from csm.data.alignment_cache import code_digest
from csm.data.code_companions import ALIGNMENT_NAME, VECTORS_NAME, read_alignment
from csm.data.code_shards import INDEX_NAME, CodeShards, codes_digests
from csm.data.corpus_digests import corpus_digests
from csm.data.manifest import read_corpus
from csm.data.remote_files import mirror
from csm.data.speakers import speaker_numbers
from csm.data.turn_table import TurnTable
from csm.data.turn_table_file import HASHED_BYTES, read_table, table_of
from csm.generation.voices import known_numbers
from csm.model import CSMModel
from csm.recipes.run_config import RunConfig
from csm.recipes.run_files import start_folder
from csm.system.digests import DIGESTS_NAME, damage
from csm.system.log import log
from csm.text import ByteCodec, aligned_as
from csm.training.distributed import DistributedContext
from csm.training.finetuning import require_speakers

# Inside the folder of the codes.
FOLDER_NAME = "tables"


def training_tables(
    run: RunConfig, codes: Path, encoded: CodeShards, model: CSMModel, distributed: DistributedContext
) -> dict[str, TurnTable]:
    """Returns the turns to train on, "train", and those whose loss is watched, "watched".

    The first rank makes the tables of a corpus once and keeps them beside its codes; then no rank reads the
    manifest. The few recordings of a small corpus may all be for training, for the split follows the hash of
    their names: these are watched then.

    Raises:
        ValueError: No corpus, an alignment of another text codec, or speakers that the model has no number
            for.
    """
    known = known_speakers(run)
    found = [*corpus_digests(run.corpus).items(), *codes_digests(codes).items(), model.config.text, known]
    found.append(code_digest())  # other rules give a text another number of ids
    material = hashlib.sha256(json.dumps(found).encode()).hexdigest()[:16]
    paths = {
        split: codes / FOLDER_NAME / f"{split}_{material}.safetensors" for split in ("train", "validation")
    }
    kept = True
    if distributed.rank == 0 and not all(is_kept(path) for path in paths.values()):
        try:
            make_tables(run, codes, encoded, model, paths)
        except OSError as error:
            kept = False  # a damaged table may still be there
            log.warning("%s: the turns are not kept beside their codes and held in memory", error)
    if distributed.from_first(kept) and all(path.is_file() for path in paths.values()):
        tables = {split: read_table(path, encoded, {}) for split, path in paths.items()}
    else:
        tables = make_tables(run, codes, encoded, model, dict.fromkeys(paths))
    for table in tables.values():
        facts = table.facts
        table.numbers = speaker_numbers(facts.speakers, known)
        require_speakers(facts.source, facts.speakers, table.numbers, model, run.data)
    watched = "validation" if len(tables["validation"]) or tables["validation"].facts.left_out else "train"
    if watched == "train":
        source = tables["train"].facts.source
        log.info("%s has no validation turns: the validation loss is that of training turns", source)
    log_left_out(tables)
    return {"train": tables["train"], "watched": tables[watched]}


def is_kept(path: Path) -> bool:
    """Whether a table is there and whole."""
    return damage(path, listed=True, hashed_bytes=HASHED_BYTES) is None


def remote_codes(url: str, folder: Path) -> Path:
    """Returns a folder that stands for codes in a bucket; shards are copied where they are read."""
    names = (INDEX_NAME, DIGESTS_NAME, ALIGNMENT_NAME, VECTORS_NAME)
    return mirror(url, folder, names)


def make_tables(
    run: RunConfig, codes: Path, encoded: CodeShards, model: CSMModel, paths: Mapping[str, Path | None]
) -> dict[str, TurnTable]:
    """Makes tables of a recipe's corpus by split, in files or, where the path is None, in memory."""
    corpus = read_corpus(run.corpus)
    numbers = speaker_numbers(corpus.speakers(), known_speakers(run))
    require_speakers(corpus.root, corpus.speakers(), numbers, model, run.data)
    ends = read_alignment(codes, aligned_as(run.model.text)) if isinstance(model.codec, ByteCodec) else None
    return {
        split: table_of(corpus, encoded, split, model.codec, numbers=numbers, ends=ends, path=path)
        for split, path in paths.items()
    }


def known_speakers(run: RunConfig) -> dict[str, int]:
    """Returns the numbers of the speakers of the voice that a recipe starts from."""
    return {} if run.model_start == "scratch" else known_numbers(start_folder(run.model_start, "voice"))


def log_left_out(tables: Mapping[str, TurnTable]) -> None:
    """Says which turns no table has."""
    for split, facts in ((split, table.facts) for split, table in tables.items()):
        if facts.left_out:
            log.warning(
                "%s: %d turns (%.1f minutes) without codes, frames or text are left out: %s",
                split,
                facts.left_out,
                facts.left_out_minutes,
                ", ".join(facts.left_out_ids) + (", ..." if facts.left_out > len(facts.left_out_ids) else ""),
            )
