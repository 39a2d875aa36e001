"""Codes in a bucket: a shard is copied where a turn of it is read, verified, and only once."""

import fsspec
import pytest
import torch

from csm.data import code_shards
from csm.data.code_companions import read_alignment, write_alignment
from csm.data.code_shards import EncodedTurn, read_code_shards, write_code_shards
from csm.data.remote_files import fetch, mirror
from csm.recipes.steps.turn_tables import remote_codes


@pytest.fixture(params=["memory", "file"])
def url(request, tmp_path, monkeypatch) -> str:
    """Codes of nine turns in three shards, in a file system of fsspec."""
    monkeypatch.setattr(code_shards, "SHARD_BYTES", 1500)
    turns = [
        EncodedTurn(f"t{n}", torch.full((2, 3 + n), n).short(), torch.zeros(3 + n, 3), torch.zeros(1))
        for n in range(9)
    ]
    write_code_shards(tmp_path / "made", turns, {"corpus": "c"})
    write_alignment(tmp_path / "made", [("t0", torch.arange(3.0))], "bytes")
    if request.param == "file":
        return f"file://{tmp_path / 'made'}"
    system = fsspec.filesystem("memory")
    system.put(str(tmp_path / "made"), "/bucket/codes", recursive=True)
    return "memory://bucket/codes"


def test_shards_are_copied_where_they_are_read(url, tmp_path):
    folder = remote_codes(url, tmp_path / "codes")
    assert not list(folder.glob("codes_*"))
    turns = read_code_shards(folder)
    assert len(turns.shards) == 3 and torch.equal(turns.at(1, 0, "t3").codes, torch.full((2, 6), 3).short())
    assert [path.name for path in folder.glob("codes_*")] == ["codes_0001.safetensors"]
    assert {name: int(turn.codes[0, 0]) for name, turn in turns.items()} == {f"t{n}": n for n in range(9)}
    assert torch.equal(read_alignment(folder, "bytes")["t0"], torch.arange(3.0))
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert len(read_code_shards(remote_codes(url, folder))) == 9
    fetch(folder, "codes_0001.safetensors")
    assert all(path.stat().st_mtime_ns == at for path, at in before.items() if path.name != "remote.json")


def test_a_shard_that_was_damaged_on_its_way_is_refused(url, tmp_path):
    folder = remote_codes(url, tmp_path / "codes")
    turns = read_code_shards(folder)
    fetch(folder, "codes_0002.safetensors")
    data = bytearray((folder / "codes_0002.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "codes_0002.safetensors").write_bytes(data)
    with pytest.raises(ValueError, match="codes_0002.safetensors has another SHA-256"):
        turns.at(2, 0, "t6")


def test_what_is_no_mirror_of_the_address_is_refused(url, tmp_path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="own holds files of its own"):
        mirror(url, tmp_path / "own", [])
    mirror(url, tmp_path / "codes", [])
    with pytest.raises(ValueError, match="codes holds files of .*: expected those of memory://other"):
        mirror("memory://other", tmp_path / "codes", [])
    with pytest.raises(ValueError, match="holds no codes"):
        read_code_shards(remote_codes("memory://nowhere", tmp_path / "empty"))
    with pytest.raises(ValueError, match="nosuch://x/index.json cannot be read .*: check the address"):
        remote_codes("nosuch://x", tmp_path / "none")
