"""Sharded encoding: the same bytes for any number of ranks, after any kill, and again only what changed."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from csm.audio.files import write_audio
from csm.data import code_shards
from csm.data.code_shards import read_code_shards, read_index
from csm.data.manifest import Conversation, Corpus, Turn, read_corpus, write_manifest
from csm.recipes import sharded_encoding
from csm.recipes.named import recipe
from csm.recipes.sharded_encoding import (
    encode_shards,
    finish_index,
    keyed_turns,
    planned_shards,
    remove_earlier,
)
from csm.tokenizer.conversational_rvq import ConversationalRVQ


def write_noise(path: Path, seed: int, seconds: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    write_audio(path, torch.randn(1, int(11_025 * seconds), generator=generator) * 0.1, 11_025)


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    """Seven conversations of three turns of noise, 0.2 to 1 s, in all splits."""
    conversations = []
    for number in range(7):
        split = ("train", "train", "train", "train", "train", "validation", "test")[number]
        turns = []
        for index in range(3):
            seconds, name = 0.2 + 0.1 * ((number * 3 + index) % 9), f"c{number}_{index}"
            write_noise(tmp_path / "corpus" / f"{name}.wav", number * 3 + index, seconds)
            kept = {"conversation": f"c{number}", "index": index, "speaker": "A", "text": "yes"}
            turns.append(Turn(id=name, audio=f"{name}.wav", end=seconds, **kept))
        conversations.append(Conversation(id=f"c{number}", split=split, turns=tuple(turns)))
    return Corpus(root=tmp_path / "corpus", conversations=tuple(conversations))


@pytest.fixture(scope="module")
def tokenizer() -> ConversationalRVQ:
    torch.manual_seed(0)
    made = ConversationalRVQ(recipe("tiny").tokenizer).eval()
    with torch.no_grad():
        made.quantizer.semantic.codebooks.normal_()
    return made


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(code_shards, "SHARD_BYTES", 3000)  # about two conversations


def encode(corpus, tokenizer, output, ranks=1, order=None) -> None:
    plans = planned_shards(corpus, tokenizer, "sha", 2)
    for rank in order or range(ranks):
        encode_shards(corpus, tokenizer, plans, output, rank=rank, ranks=ranks)
    finish_index(output, plans, {"corpus": "noise"})
    remove_earlier(output, plans)


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_the_bytes_are_the_same_for_any_number_of_ranks_in_any_order(corpus, tokenizer, tmp_path):
    encode(corpus, tokenizer, tmp_path / "one")
    expected = contents(tmp_path / "one")
    assert len(expected) == 5 + 2  # three shards of the train split, one of each other
    for ranks, order in ((2, (1, 0)), (3, (2, 0, 1)), (8, None)):
        encode(corpus, tokenizer, tmp_path / f"{ranks}", ranks, order)
        assert contents(tmp_path / f"{ranks}") == expected
    turns = read_code_shards(tmp_path / "one")
    assert list(turns) == [turn.id for turn in corpus.turns()]  # train, validation and test in turn here
    assert {len(turns[t.id].shifted) for t in corpus.turns("train")} == {1}
    assert {len(turns[t.id].shifted) for t in corpus.turns("test")} == {0}


def test_a_corpus_that_is_read_from_its_folder_gives_the_same_bytes(corpus, tokenizer, tmp_path):
    encode(corpus, tokenizer, tmp_path / "held")
    write_manifest(corpus.root / "manifest.jsonl", corpus.conversations)
    (corpus.root / "corpus.json").write_text("{}")
    encode(read_corpus(corpus.root), tokenizer, tmp_path / "read", 3)
    assert contents(tmp_path / "read") == contents(tmp_path / "held")


def test_names_are_those_of_before_plans_held_no_turns(tmp_path, monkeypatch):
    monkeypatch.setattr(code_shards, "SHARD_BYTES", 30_000)
    (tmp_path / "a.flac").write_bytes(b"sound")
    conversations = [
        Conversation(
            id=f"c{number}",
            split="validation" if number == 4 else "train",
            turns=tuple(
                Turn(
                    id=f"c{number}_{index}",
                    conversation=f"c{number}",
                    index=index,
                    speaker="A",
                    text="",
                    audio="a.flac",
                    end=30.0,
                )
                for index in range(3)
            ),
        )
        for number in range(5)
    ]
    tokenizer = SimpleNamespace(config=SimpleNamespace(n_codebooks=8, frame_rate=12.5))
    plans = planned_shards(Corpus(root=tmp_path, conversations=conversations), tokenizer, "sha", 2)
    assert [plan.name for plan in plans] == [
        "codes_0000_7d28766048e91a2f.safetensors",
        "codes_0001_8e54a78fa870208e.safetensors",
        "codes_0002_ecaab5299e023410.safetensors",
        "codes_0003_e171de1dad1e133a.safetensors",
        "codes_0004_0d0ffc944e638e2e.safetensors",
    ]
    assert [(plan.split, plan.first, plan.last, plan.turns) for plan in plans] == [
        *(("train", place, place + 1, 3) for place in range(4)),
        ("validation", 0, 1, 3),
    ]


def test_a_killed_encoding_is_resumed_at_its_shard_with_the_same_bytes(
    corpus, tokenizer, tmp_path, monkeypatch
):
    encode(corpus, tokenizer, tmp_path / "whole")
    written, write = [], sharded_encoding.write_shard

    def killed(path, turns):
        if len(written) == 2:
            path.with_name(f"{path.name}.tmp-1").write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(path.name)
        return write(path, turns)

    monkeypatch.setattr(sharded_encoding, "write_shard", killed)
    with pytest.raises(KeyboardInterrupt):
        encode(corpus, tokenizer, tmp_path / "codes")
    assert read_index(tmp_path / "codes") is None
    again = []
    monkeypatch.setattr(
        sharded_encoding, "write_shard", lambda path, turns: (again.append(path.name), write(path, turns))[1]
    )
    encode(corpus, tokenizer, tmp_path / "codes")
    assert len(again) == 3 and not set(again) & set(written)
    assert contents(tmp_path / "codes") == contents(tmp_path / "whole")


def test_of_a_changed_corpus_only_what_changed_is_encoded(corpus, tokenizer, tmp_path, monkeypatch):
    codes = tmp_path / "codes"
    encode(corpus, tokenizer, codes)
    before = {name: turn.codes.clone() for name, turn in read_code_shards(codes).items()}
    kept = {path.name for path in codes.glob("codes_*")}
    # c1_1 is recorded again, a conversation comes first, and c4 is gone.
    write_noise(corpus.root / "c1_1.wav", 99, 0.5)
    write_noise(corpus.root / "new.wav", 77, 0.4)
    c1 = corpus.conversations[1]
    c1 = replace(c1, turns=(c1.turns[0], replace(c1.turns[1], end=0.5), c1.turns[2]))
    new = Turn(id="new", conversation="n", index=0, speaker="A", text="", audio="new.wav", end=0.4)
    conversations = (Conversation(id="n", split="train", turns=(new,)), corpus.conversations[0], c1)
    changed = replace(
        corpus, conversations=(*conversations, *corpus.conversations[2:4], *corpus.conversations[5:])
    )
    encoded, group = [], sharded_encoding.encoded_turns
    monkeypatch.setattr(
        sharded_encoding,
        "encoded_turns",
        lambda c, turns, *rest: (encoded.extend(t.id for t in turns), group(c, turns, *rest))[1],
    )
    encode(changed, tokenizer, codes)
    assert sorted(encoded) == ["c1_1", "new"]
    after = read_code_shards(codes)
    assert list(after) == [turn.id for turn in changed.turns()]
    assert all(torch.equal(after[n].codes, before[n]) for n in after if n in before and n != "c1_1")
    encode(changed, tokenizer, tmp_path / "fresh")
    assert contents(codes) == contents(tmp_path / "fresh")
    assert kept & contents(codes).keys() and not kept <= contents(codes).keys()


def test_one_name_with_other_sound_shares_no_codes(corpus, tokenizer, tmp_path):
    plan = planned_shards(corpus, tokenizer, "sha", 1)
    before = keyed_turns(corpus, plan[0])
    write_noise(corpus.root / "c0_0.wav", 1234, 0.2)
    other = planned_shards(corpus, tokenizer, "sha", 1)
    after = keyed_turns(corpus, other[0])
    assert before[0].turn == after[0].turn and before[0].key != after[0].key and before[1:] == after[1:]
    assert plan[0].name != other[0].name and plan[1].name == other[1].name
    with pytest.raises(ValueError, match="has changed since its encoding began"):
        keyed_turns(corpus, plan[0])


def test_a_damaged_shard_is_encoded_again(corpus, tokenizer, tmp_path):
    encode(corpus, tokenizer, tmp_path / "codes")
    expected = contents(tmp_path / "codes")
    shard = tmp_path / "codes" / json.loads((tmp_path / "codes/index.json").read_text())["shards"][1]["name"]
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    with pytest.raises(ValueError, match="has another SHA-256"):
        read_code_shards(tmp_path / "codes")["c2_0"]
    encode(corpus, tokenizer, tmp_path / "codes")
    assert contents(tmp_path / "codes") == expected
