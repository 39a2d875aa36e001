"""A file is used only if it is what was entered; a bit that flipped is named with its file."""

from __future__ import annotations

import hashlib
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from csm.system import digests
from csm.system.digests import (
    DIGESTS_NAME,
    damage,
    entered_digest,
    folder_digests,
    record_digests,
    require_intact,
    sha256_of_json,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "audio").mkdir()
    (tmp_path / "audio" / "a.flac").write_bytes(b"sound")
    (tmp_path / "codes").write_bytes(bytes(100))
    record_digests(tmp_path, ["codes", tmp_path / "audio" / "a.flac"])
    return tmp_path


def test_every_flipped_bit_is_found_and_the_file_is_named(folder: Path) -> None:
    assert damage(folder / "codes") is None
    for place in (0, 50, 99):
        data = bytearray(100)
        data[place] = 4
        (folder / "codes").write_bytes(data)
        with pytest.raises(
            ValueError, match=r"codes has another SHA-256 .* bytes have changed on disk; again"
        ):
            require_intact(folder / "codes", "again")
    (folder / "codes").write_bytes(bytes(99))
    assert damage(folder / "codes") == "has 99 bytes, sha256.json says 100"


def test_a_missing_file_and_one_that_was_not_entered_are_distinguished(folder: Path) -> None:
    (folder / "more").touch()
    assert damage(folder / "more") is None
    assert damage(folder / "more", listed=True) == "is not in sha256.json"
    (folder / "codes").unlink()
    assert damage(folder / "codes") == "is missing"
    assert damage(folder / "never") is None and damage(folder / "never", listed=True) == "is missing"


def test_a_file_below_the_folder_is_entered_by_its_path(folder: Path) -> None:
    path = folder / "audio" / "a.flac"
    assert damage(path, folder=folder, listed=True) is None
    path.write_bytes(b"sount")
    assert "another SHA-256" in str(damage(path, folder=folder))


def test_later_entries_join_earlier_ones_and_those_of_removed_files_go(folder: Path) -> None:
    (folder / "codes").unlink()
    record_digests(folder, [], planned={"index.json": "{}"})
    assert set(folder_digests(folder)) == {"audio/a.flac", "index.json"}
    (folder / "index.json").write_text("{}")
    assert damage(folder / "index.json", listed=True) is None


def test_a_file_is_read_once_until_its_size_or_time_changes(folder: Path, monkeypatch) -> None:
    path, reads = folder / "codes", []
    monkeypatch.setattr(digests, "_known", {})
    monkeypatch.setattr(digests, "file_sha256", lambda path: reads.append(path) or "0" * 64)
    damage(path), damage(path)
    assert len(reads) == 2  # it has just been written, and its time may stay where its bytes change
    reads.clear()
    os.utime(path, (2, 2))
    damage(path), damage(path)
    assert len(reads) == 1
    os.utime(path, (1, 1))
    damage(path)
    assert len(reads) == 2


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"files": 3}', '{"files": {"codes": {"size": 1}}}', "[" * 100_000, '{"files": {"a": []}}'],
)
def test_a_damaged_index_is_one_line(folder: Path, text: str) -> None:
    (folder / DIGESTS_NAME).write_text(text)
    with pytest.raises(ValueError, match=r"sha256.json is damaged \(\w+: .*copy it again$"):
        damage(folder / "codes")


def test_one_entry_is_that_of_all(folder: Path) -> None:
    for name, digest in folder_digests(folder).items():
        assert entered_digest(folder / name, folder) == digest
    assert entered_digest(folder / "other", folder) is None
    assert entered_digest(folder / "audio" / "a.flac", folder / "audio") is None


def test_json_with_iterators_is_hashed_as_that_of_lists() -> None:
    parts = ["a", [1, None], [("d\u00e9", 0.1), ("\ud800", 2)], [], {"x": 1}]
    expected = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    assert sha256_of_json(parts) == expected
    assert sha256_of_json(iter([parts[0], iter([1, None]), iter(parts[2]), iter([]), parts[4]])) == expected


@pytest.mark.parametrize("layout", [{"indent": 1}, {"indent": 2}, {}, {"indent": 1, "ensure_ascii": False}])
def test_entries_of_any_layout_are_read(tmp_path: Path, layout: dict[str, object]) -> None:
    names = ["a", "d\u00e9/b.flac", 'quo"te', "line\nend", "sep\u2028"]
    entries = {name: {"size": place, "sha256": f"{place:064x}"} for place, name in enumerate(names)}
    reordered = {name: dict(reversed(entry.items())) for name, entry in entries.items()}
    longer = {name: {**entry, "more": [1]} for name, entry in entries.items()}
    for found in (entries, reordered, longer):
        for content in ({"files": found}, {"files": found, "more": {}}, {"more": 1, "files": found}):
            (tmp_path / DIGESTS_NAME).write_text(json.dumps(content, **layout), encoding="utf-8")
            assert folder_digests(tmp_path) == {name: entry["sha256"] for name, entry in entries.items()}
            for name, entry in entries.items():
                assert entered_digest(tmp_path / name, tmp_path) == entry["sha256"]
            assert entered_digest(tmp_path / "other", tmp_path) is None
    (tmp_path / DIGESTS_NAME).write_text(json.dumps({"files": {}}, **layout))
    assert folder_digests(tmp_path) == {} and entered_digest(tmp_path / "a", tmp_path) is None


def test_an_entry_takes_tens_of_bytes(tmp_path: Path) -> None:
    count = 5000
    entries = {f"audio/{n:05d}.flac": {"size": 1, "sha256": f"{n:064x}"} for n in range(count)}
    (tmp_path / DIGESTS_NAME).write_text(json.dumps({"files": entries}, indent=1) + "\n")
    os.utime(tmp_path / DIGESTS_NAME, (2, 2))
    tracemalloc.start()
    try:
        assert entered_digest(tmp_path / "audio/00017.flac", tmp_path) == f"{17:064x}"
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 70 * count and peak < 200 * count
