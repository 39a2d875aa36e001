"""Files and folders are whole or not there, readable as the umask says, and named by their content."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from csm.system.files import (
    file_sha256,
    full_disk_named,
    hash_key,
    move_files,
    new_file,
    new_folder,
    order_by_hash,
    remove_leftovers,
    write_atomically,
)
from tests.full_disk import largest_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_and_its_text_keeps_its_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, b"old")
    write_atomically(str(path), "one\ntwo \u00e9\r\n")
    assert path.read_bytes() == "one\ntwo \u00e9\r\n".encode() and names(tmp_path) == ["a.json"]


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), new_file(path) as temporary:
        temporary.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old" and names(tmp_path) == ["a.bin"]


def test_a_full_disk_is_named_with_its_free_bytes_whichever_library_reports_it(tmp_path: Path) -> None:
    def by_safetensors(path: Path) -> None:
        with new_file(path) as temporary:
            save_file({"a": torch.zeros(5000)}, temporary)

    def in_a_folder(path: Path) -> None:
        with new_folder(path) as partial, (partial / "inner").open("wb") as file:
            file.write(bytes(5000))

    for write in (lambda path: write_atomically(path, bytes(5000)), by_safetensors, in_a_folder):
        with largest_file(2000), pytest.raises(OSError, match=r"\d+ bytes are free there.*target"):
            write(tmp_path / "target")
        assert names(tmp_path) == []


def test_an_error_that_is_no_full_disk_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyError), full_disk_named(tmp_path):
        raise KeyError("os error 28")
    with pytest.raises(FileNotFoundError, match="missing"), full_disk_named(tmp_path):
        (tmp_path / "missing").read_bytes()


def test_what_killed_writers_left_is_removed_at_any_depth_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a" / "step_1.tmp-0bad" / "deep").mkdir(parents=True)
    (tmp_path / "a" / "latest.tmp-12").write_text("half")
    (tmp_path / "a" / "latest").write_text("whole")
    (tmp_path / "run.json.tmp-7").symlink_to(tmp_path / "a" / "latest")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["a"] and names(tmp_path / "a") == ["latest"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_a_file_has_the_mode_of_the_umask_whoever_writes_it(mask: int, tmp_path: Path) -> None:
    before = os.umask(mask)
    try:
        with new_file(tmp_path / "a.safetensors") as temporary:
            save_file({"a": torch.zeros(2)}, temporary)
        write_atomically(tmp_path / "b.json", "{}")
    finally:
        os.umask(before)
    for name in names(tmp_path):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o666 & ~mask


def test_a_folder_appears_with_all_its_files_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "folder"
    (tmp_path / "deep" / "folder.part").mkdir(parents=True)
    (tmp_path / "deep" / "folder.part" / "of_a_killed_process").touch()
    with pytest.raises(RuntimeError), new_folder(target) as partial:
        assert names(partial) == []
        (partial / "a").touch()
        raise RuntimeError
    assert names(tmp_path / "deep") == []
    with new_folder(target) as partial:
        (partial / "a").touch()
        assert not target.exists()
    assert names(tmp_path / "deep") == ["folder"] and names(target) == ["a"]


def test_files_are_moved_with_the_one_that_marks_the_end_last(tmp_path: Path, monkeypatch) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    for name in ("a", "model", "z"):
        (source / name).write_text(name)
    moved, replace = [], os.replace
    monkeypatch.setattr("os.replace", lambda old, new: (moved.append(old.name), replace(old, new)))
    move_files(source, target, last="model")
    assert moved == ["a", "z", "model"] and names(target) == ["a", "model", "z"] and not source.exists()


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    data = os.urandom(2**22 + 5)
    (tmp_path / "a").write_bytes(data)
    assert file_sha256(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_the_order_by_hash_depends_on_seed_and_names_alone() -> None:
    some = [f"turn_{number}" for number in range(20)]
    order = order_by_hash(some, seed=1)
    assert sorted(order) == sorted(some) and order != some
    assert order_by_hash(reversed(some), seed=1) == order != order_by_hash(some, seed=2)
    assert order_by_hash(some[:9], seed=1) == [name for name in order if name in some[:9]]
    assert hash_key("a", 3) == hashlib.sha256(b"3:a").digest()
    assert hash_key("a") == hashlib.sha256(b"a").digest() and len(hash_key("\udc80")) == 32
