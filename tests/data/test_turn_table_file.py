"""Tables of turns: what a file maps is what was made, and nothing of the corpus is held for it."""

import hashlib
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from csm.data.code_companions import read_alignment, write_alignment
from csm.data.code_shards import EncodedTurn, read_code_shards, write_code_shards
from csm.data.forced_alignment import symbols
from csm.data.manifest import Conversation, Corpus, Turn, read_corpus, write_manifest
from csm.data.turn_table_file import read_table, table_of
from csm.system import digests
from csm.text import ByteCodec

NUMBERS = {"Ana": 5, "B\u00e9la": 0}


@pytest.fixture
def material(tmp_path):
    """Five conversations; c1 has no voice, c2_1 no text, c3_0 no codes."""
    conversations, encoded = [], []
    for number in range(5):
        turns = []
        for index in range(3):
            name = f"c{number}_{index}"
            text = "" if name == "c2_1" else f"line {index} of c{number}, d\u00e9j\u00e0 vu"
            kept = {"conversation": f"c{number}", "index": index, "speaker": list(NUMBERS)[index % 2]}
            turns.append(Turn(id=name, text=text, audio="a.flac", end=30.0, **kept))
            frames = 0 if number == 1 else 4 + index
            codes = torch.randint(0, 9, (2, frames)).short()
            if name != "c3_0":
                encoded.append(EncodedTurn(name, codes, torch.rand(frames, 3).half(), torch.zeros(1).half()))
        split = "validation" if number == 4 else "train"
        conversations.append(Conversation(id=f"c{number}", split=split, turns=tuple(turns)))
    write_code_shards(tmp_path / "codes", encoded, {})
    corpus = Corpus(root=tmp_path, conversations=tuple(conversations))
    return corpus, read_code_shards(tmp_path / "codes")


def made(material, ends=None, split="train", path=None):
    return table_of(*material, split, ByteCodec(), numbers=NUMBERS, ends=ends, path=path)


def test_a_table_holds_the_usable_turns_and_names_the_others(material):
    table = made(material)
    ids = [table.id_of(number) for number in range(len(table))]
    assert ids == ["c0_0", "c0_1", "c0_2", "c2_0", "c2_2", "c3_1", "c3_2"]
    assert [table.place_of(name) for name in ids] == list(range(7)) and table.place_of("c2_1") is None
    assert table.conversations == 3 and [len(table.rows_of(c)) for c in range(3)] == [3, 2, 2]
    facts = table.facts
    assert facts.left_out == 5 and facts.left_out_minutes == 2.5 and facts.silent == ("c1",)
    assert facts.left_out_ids == ("c1_0", "c1_1", "c1_2", "c2_1", "c3_0")
    first, second = table.turns_of(1, 0, 2)
    assert second.text == "line 2 of c2, d\u00e9j\u00e0 vu" and second.speaker == 5 and second.id == "c2_2"
    assert torch.equal(first.codes, material[1]["c2_0"].codes)
    expected = len(ByteCodec().encode_turn(second.text, 5)) + 6 + 1
    assert table.rows_of(1)[1] == expected == table.rows(4, 5)[0]


def aligned(corpus):
    """Ends of all texts, in frames of 80 ms."""
    return {
        t.id: 0.1 * torch.arange(1, len(symbols(ByteCodec(), t.text)) + 1) * 12.5
        for t in corpus.turns()
        if t.text
    }


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


def test_the_bytes_of_table_and_alignment_are_those_of_before_they_were_streamed(material, tmp_path):
    corpus = replace(material[0], root=Path("corpus"))
    ends = aligned(corpus)
    write_alignment(tmp_path, ends.items(), "bytes", "0af")
    assert sha256_of(tmp_path / "alignment.safetensors") == "0f5d0a200aa770f3"
    for number, given in enumerate((ends, read_alignment(tmp_path, "bytes"))):
        path = tmp_path / f"{number}.safetensors"
        made((corpus, material[1]), given, path=path)
        assert sha256_of(path) == "eccd6f80bf38517d"


def test_a_table_in_a_file_is_made_with_less_than_80_bytes_a_turn(tmp_path, monkeypatch):
    """Corpus, codes and alignment of 10,000 turns are opened for it."""

    def in_small_blocks(path):  # the function itself holds 8 MB
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(2**14):
                digest.update(block)
        return digest.hexdigest()

    monkeypatch.setattr(digests, "file_sha256", in_small_blocks)
    conversations = [
        Conversation(
            id=f"c{number}",
            split="train",
            turns=tuple(
                Turn(
                    id=f"c{number}_{index}",
                    conversation=f"c{number}",
                    index=index,
                    speaker="Ana",
                    text="what is said " * 8,
                    audio="a.flac",
                    end=1.0,
                )
                for index in range(10)
            ),
        )
        for number in range(1000)
    ]
    write_manifest(tmp_path / "manifest.jsonl", conversations)
    (tmp_path / "corpus.json").write_text("{}")
    ids = [turn.id for conversation in conversations for turn in conversation.turns]
    codes = torch.zeros(1, 1).short(), torch.zeros(1, 3).half(), torch.zeros(1).half()
    write_code_shards(tmp_path / "codes", (EncodedTurn(name, *codes) for name in ids), {})
    times = torch.ones(len(ByteCodec().encode_turn("what is said " * 8, 5)) - 1)
    write_alignment(tmp_path, ((name, times) for name in ids), "bytes")
    del conversations
    tracemalloc.start()
    material = read_corpus(tmp_path), read_code_shards(tmp_path / "codes")
    table = made(material, read_alignment(tmp_path, "bytes"), path=tmp_path / "tables" / "t.safetensors")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(table) == len(ids) and peak < 80 * len(ids)


def test_a_file_gives_back_the_table(material, tmp_path):
    ends = aligned(material[0])
    ends.pop("c0_1")
    table = made(material, ends)
    found = made(material, ends, path=tmp_path / "tables" / "train.safetensors")
    assert found.facts == table.facts and found.arrays.keys() == table.arrays.keys()
    assert all(np.array_equal(found.arrays[name], array) for name, array in table.arrays.items())
    for number in range(len(table)):
        a, b = found.turn(number), table.turn(number)
        assert a[:3] == b[:3] and torch.equal(a.codes, b.codes) and torch.equal(a.prosody, b.prosody)
        assert (a.ends is None) == (b.ends is None) == (a.id == "c0_1")
        assert a.ends is None or torch.equal(a.ends, b.ends)


def test_an_alignment_of_other_symbols_is_refused_with_what_to_do(material):
    ends = {
        turn.id: torch.ones(len(symbols(ByteCodec(), turn.text))) for turn in material[0].turns() if turn.text
    }
    made(material, ends)
    ends["c2_2"] = ends["c2_2"][1:]
    with pytest.raises(ValueError, match="turn c2_2: 24 symbols .* gives 25: .* run csm encode again"):
        made(material, ends)


def test_a_flipped_bit_and_a_table_without_its_entry_are_refused(material, tmp_path):
    path = tmp_path / "tables" / "train.safetensors"
    made(material, path=path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 8
    path.write_bytes(data)
    with pytest.raises(
        ValueError, match="train.safetensors has another SHA-256.*the training writes it again"
    ):
        read_table(path, material[1], NUMBERS)
    (path.parent / "sha256.json").unlink()
    with pytest.raises(ValueError, match="is not in sha256.json"):
        read_table(path, material[1], NUMBERS)


def test_a_split_without_turns_is_an_empty_table(material):
    assert len(made(material, split="test")) == 0 and len(made(material, split="validation")) == 3
