"""Encoded corpora on disk: what goes in comes out, half-written ones do not count, damage is named."""

import pytest
import torch

from csm.data import code_shards
from csm.data.code_companions import aligned_text, read_alignment, write_alignment
from csm.data.code_shards import (
    LARGEST_SHARD_BYTES,
    SHARD_BYTES,
    EncodedTurn,
    read_code_shards,
    read_index,
    shard_bytes,
    write_code_shards,
)


def encoded(count: int) -> list[EncodedTurn]:
    g = torch.Generator().manual_seed(0)
    return [
        EncodedTurn(
            f"turn_{i:02d}",
            torch.randint(0, 1024, (4, 1 + i % 5), generator=g).short(),
            torch.rand(1 + i % 5, 3, generator=g).half(),
            torch.rand(6, generator=g).half(),
        )
        for i in range(count)
    ]


def test_shards_grow_with_what_is_before_them_up_to_the_largest():
    sizes, before = [], 0
    while before < 100_000 * 3600 * 12.5 * 70:  # 32 codebooks in one cut, and prosody
        sizes.append(shard_bytes(before))
        before += sizes[-1]
    assert sizes[:32] == 32 * [SHARD_BYTES] and max(sizes) == sizes[-1] == LARGEST_SHARD_BYTES
    assert sizes == sorted(sizes) and 1200 < len(sizes) < 1500


@pytest.mark.parametrize("count", [1, 4, 11])
def test_what_is_written_is_read(count, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(code_shards, "SHARD_BYTES", 2000)  # of about 530 bytes a turn
    turns = encoded(count)
    assert write_code_shards(tmp_path / "codes", iter(turns), {"corpus": "c"}) == count
    found = read_code_shards(tmp_path / "codes")
    assert list(found) == [t.id for t in turns] and len(found) == count and "other" not in found
    for turn in turns:
        for a, b in zip(turn[1:4], found[turn.id][1:4], strict=True):
            assert a.dtype == b.dtype and torch.equal(a, b)
        assert found.frames_of(turn.id) == turn.codes.shape[1]
    assert len(list((tmp_path / "codes").glob("*.safetensors"))) == -(-count // 4)
    index = read_index(tmp_path / "codes")
    assert index["corpus"] == "c"
    assert sum(shard.frames for shard in index["shards"]) == sum(t.codes.shape[1] for t in turns)
    assert max(s.highest for s in index["shards"]) == max(int(t.codes.max()) for t in turns)


def test_time_shifts_and_keys_come_back(tmp_path) -> None:
    turns = [
        t._replace(shifted=(t.codes + 1, t.codes + 2), key=f"{i:032x}") for i, t in enumerate(encoded(3))
    ]
    write_code_shards(tmp_path, turns, {})
    for name, turn in read_code_shards(tmp_path).items():
        assert torch.equal(turn.shifted[0], turn.codes + 1) and torch.equal(turn.shifted[1], turn.codes + 2)
        assert int(turn.key, 16) == int(name.removeprefix("turn_"))


def test_a_turn_has_a_place_by_id_and_by_key(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(code_shards, "SHARD_BYTES", 2000)
    turns = [turn._replace(key=f"{i // 2:016x}{i:016x}") for i, turn in enumerate(encoded(11))]
    write_code_shards(tmp_path, turns, {})
    found = read_code_shards(tmp_path)
    for i in (7, 3, 4, 10, 0):
        assert found.place_of(turns[i].id) == found.place_of_key(turns[i].key) == (i // 4, i % 4)
    assert found.place_of("other") is None and found.place_of_key(f"{0:016x}{5:016x}") is None
    assert found.frames_of("other") == 0 and found.get("other") is None


def test_an_encoding_that_stops_half_way_leaves_no_index(tmp_path) -> None:
    write_code_shards(tmp_path, encoded(2), {})

    def stops():
        yield encoded(1)[0]
        raise RuntimeError("out of power")

    with pytest.raises(RuntimeError):
        write_code_shards(tmp_path, stops(), {})
    assert read_index(tmp_path) is None
    with pytest.raises(ValueError, match="holds no codes"):
        read_code_shards(tmp_path)


def test_a_missing_shard_and_a_turn_that_comes_twice_are_named(tmp_path) -> None:
    write_code_shards(tmp_path, encoded(2), {})
    (tmp_path / "codes_0000.safetensors").unlink()
    with pytest.raises(ValueError, match="codes_0000.safetensors is missing"):
        read_code_shards(tmp_path)["turn_00"]
    with pytest.raises(ValueError, match="turn turn_00 came twice"):
        write_code_shards(tmp_path, encoded(1) * 2, {})


def test_an_alignment_is_of_one_text_codec(tmp_path) -> None:
    assert aligned_text(tmp_path) is None and read_alignment(tmp_path, "bytes") is None
    write_alignment(tmp_path, [("a", torch.tensor([0.5, 2.0]))], "phones")
    assert aligned_text(tmp_path) == ("phones", "")
    found = read_alignment(tmp_path, "phones")
    assert torch.equal(found["a"], torch.tensor([0.5, 2.0])) and "b" not in found and len(found) == 1
    with pytest.raises(
        ValueError, match="of the text codec 'phones', the model's is aligned as 'bytes': run launch/enc"
    ):
        read_alignment(tmp_path, "bytes")


def test_alignments_of_any_number_of_turns_come_back(tmp_path) -> None:
    for count in (0, 1, 40):
        ends = {f"t{number}": torch.arange(float(number % 3)) for number in range(count)}
        write_alignment(tmp_path, iter(ends.items()), "bytes")
        found = read_alignment(tmp_path, "bytes")
        assert list(found) == list(ends) and all(torch.equal(found[name], ends[name]) for name in ends)
