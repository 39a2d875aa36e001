"""The tables of turns of a training where their folder cannot be written."""

from types import SimpleNamespace

import pytest
import torch

from csm.data.code_shards import EncodedTurn, read_code_shards, write_code_shards
from csm.data.manifest import Conversation, Turn, read_corpus, write_manifest
from csm.data.turn_table_file import table_of
from csm.recipes.steps import turn_tables
from csm.text import ByteCodec
from tests.recipes.steps.conftest import ALONE


@pytest.mark.parametrize("damaged", [False, True])
def test_a_table_that_cannot_be_written_again_is_held_in_memory(tmp_path, monkeypatch, damaged) -> None:
    turn = Turn(id="a", conversation="c", index=0, speaker="Ann", text="so", audio="a.flac", end=1.0)
    write_manifest(tmp_path / "manifest.jsonl", [Conversation(id="c", split="train", turns=(turn,))])
    (tmp_path / "corpus.json").write_text("{}")
    codes = torch.zeros(1, 4).short(), torch.zeros(4, 3).half(), torch.zeros(1).half()
    write_code_shards(tmp_path / "codes", [EncodedTurn("a", *codes)], {})
    corpus, encoded = read_corpus(tmp_path), read_code_shards(tmp_path / "codes")
    writable = True

    def made(run, codes, encoded, model, paths):
        if not writable and any(paths.values()):
            raise PermissionError("tables: is read-only")
        given = (corpus, encoded), (ByteCodec(),)
        return {s: table_of(*given[0], s, *given[1], numbers={"Ann": 0}, path=p) for s, p in paths.items()}

    monkeypatch.setattr(turn_tables, "make_tables", made)
    monkeypatch.setattr(turn_tables, "require_speakers", lambda *given: None)
    run = SimpleNamespace(corpus=str(tmp_path), model_start="scratch", data=None)
    given = run, tmp_path / "codes", encoded, SimpleNamespace(config=SimpleNamespace(text="bytes")), ALONE
    assert len(turn_tables.training_tables(*given)["train"]) == 1
    (path,) = (tmp_path / "codes/tables").glob("train_*")
    if damaged:
        path.write_bytes(path.read_bytes()[:-1])
    writable = False
    assert len(turn_tables.training_tables(*given)["train"]) == 1
