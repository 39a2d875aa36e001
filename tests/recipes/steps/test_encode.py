"""Encoding writes into its own folder alone, and into no folder of other codes."""

import json
import shutil
from dataclasses import replace

import pytest
import torch

from csm.data.code_companions import read_code_vectors
from csm.data.code_shards import read_code_shards, read_index
from csm.recipes.steps.encode import encode_corpus
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.training.distributed import DistributedContext

ALONE = DistributedContext(rank=0, size=1, local_size=1, device=torch.device("cpu"))


def contents(folder):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.rglob("*") if path.is_file()
    }


def test_codes_alignment_vectors_and_usage_lie_in_the_codes_folder(steps):
    names = {path.name for path in steps.codes.iterdir()}
    assert names == {
        *("index.json", "alignment.safetensors", "code_vectors.safetensors"),
        *(
            "codebooks.json",
            "sha256.json",
            "tables",
            *(shard.name for shard in read_index(steps.codes)["shards"]),
        ),
    }
    assert not (steps.tokenizer / "codebooks.json").exists()
    usage = json.loads((steps.codes / "codebooks.json").read_text())
    assert len(usage["usage"]) == 4 and usage["codebook_size"] == 32
    assert (read_index(steps.codes) or {})["tokenizer"] == str(steps.tokenizer)
    turns = read_code_shards(steps.codes)
    assert len(turns) == 30 and len(turns["train0"].shifted) == 1 and not turns["test0"].shifted


def test_encoding_again_changes_nothing_of_its_inputs_and_makes_what_is_missing(steps, tmp_path):
    codes = tmp_path / "codes"
    shutil.copytree(steps.codes, codes)
    before = contents(steps.tokenizer), contents(steps.codes)
    encode_corpus(steps.run, steps.tokenizer, steps.codes, ALONE)
    assert before == (contents(steps.tokenizer), contents(steps.codes))
    for name in ("codebooks.json", "alignment.safetensors"):
        (codes / name).unlink()
    encode_corpus(steps.run, steps.tokenizer, codes, ALONE)
    assert {path.name: data for path, (_, data) in contents(codes).items()} == {
        path.name: data for path, (_, data) in before[1].items()
    }


def test_a_model_of_any_number_of_codebooks_finds_the_vectors_of_its_codes(steps, tmp_path):
    few = replace(steps.run, model=replace(steps.run.model, num_codebooks=2, semantic_codebooks=2))
    encode_corpus(few, steps.tokenizer, tmp_path / "codes", ALONE)
    vectors = read_code_vectors(tmp_path / "codes")
    assert vectors is not None and len(vectors) == steps.run.tokenizer.n_codebooks


def test_codes_of_other_time_shifts_or_another_tokenizer_are_refused(steps, tmp_path):
    more = replace(steps.run, data=replace(steps.run.data, time_shifts=3))
    with pytest.raises(ValueError, match="holds codes of another run: time_shifts differ"):
        encode_corpus(more, steps.tokenizer, steps.codes, ALONE)
    other = tmp_path / "tokenizer"
    shutil.copytree(steps.tokenizer, other)
    ConversationalRVQ(steps.run.tokenizer).save_pretrained(other)
    with pytest.raises(ValueError, match="tokenizer_sha256 differ"):
        encode_corpus(steps.run, other, steps.codes, ALONE)
