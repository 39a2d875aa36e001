"""Tables of turns: what a file maps is what was made, and nothing of the corpus is held for it."""

import numpy as np
import pytest
import torch

from csm.data.code_shards import EncodedTurn, read_code_shards, write_code_shards
from csm.data.forced_alignment import symbols
from csm.data.manifest import Conversation, Corpus, Turn
from csm.data.turn_table_file import read_table, table_of, write_table
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


def made(material, ends=None, split="train"):
    return table_of(*material, split, ByteCodec(), numbers=NUMBERS, ends=ends)


def test_a_table_holds_the_usable_turns_and_names_the_others(material):
    table = made(material)
    ids = [table.id_of(number) for number in range(len(table))]
    assert ids == ["c0_0", "c0_1", "c0_2", "c2_0", "c2_2", "c3_1", "c3_2"]
    assert table.conversations == 3 and [len(table.rows_of(c)) for c in range(3)] == [3, 2, 2]
    facts = table.facts
    assert facts.left_out == 5 and facts.left_out_minutes == 2.5 and facts.silent == ("c1",)
    assert facts.left_out_ids == ("c1_0", "c1_1", "c1_2", "c2_1", "c3_0")
    first, second = table.turns_of(1, 0, 2)
    assert second.text == "line 2 of c2, d\u00e9j\u00e0 vu" and second.speaker == 5 and second.id == "c2_2"
    assert torch.equal(first.codes, material[1]["c2_0"].codes)
    expected = len(ByteCodec().encode_turn(second.text, 5)) + 6 + 1
    assert table.rows_of(1)[1] == expected == table.rows(4, 5)[0]


def test_a_file_gives_back_the_table(material, tmp_path):
    codec = ByteCodec()
    ends = {
        t.id: 0.1 * torch.arange(1, len(symbols(codec, t.text)) + 1) for t in material[0].turns() if t.text
    }
    table = made(material, {name: times for name, times in ends.items() if name != "c0_1"})
    write_table(tmp_path / "tables" / "train.safetensors", table)
    found = read_table(tmp_path / "tables" / "train.safetensors", material[1], NUMBERS)
    assert found.facts == table.facts and found.arrays.keys() == table.arrays.keys()
    assert all(np.array_equal(found.arrays[name], array) for name, array in table.arrays.items())
    for number in range(len(table)):
        a, b = found.turn(number), table.turn(number)
        assert a[:3] == b[:3] and torch.equal(a.codes, b.codes) and torch.equal(a.prosody, b.prosody)
        assert (a.ends is None) == (b.ends is None) == (a.id == "c0_1")
        assert a.ends is None or torch.equal(a.ends, b.ends)


def test_a_flipped_bit_and_a_table_without_its_entry_are_refused(material, tmp_path):
    path = tmp_path / "tables" / "train.safetensors"
    write_table(path, made(material))
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
