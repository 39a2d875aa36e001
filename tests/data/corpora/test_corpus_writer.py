"""A corpus folder appears complete or not at all, and its ledger lists every reject."""

import json
import shutil
from collections import namedtuple

import pytest

from csm.data.corpora.corpus_writer import CorpusWriter
from csm.data.manifest import Turn, read_corpus


def turn(name: str, conversation: str = "c") -> Turn:
    return Turn(
        id=name, conversation=conversation, index=0, speaker="Ana", text="Hm.", audio="audio/a.flac", end=60.0
    )


def writer_for(folder, source: str = "s") -> CorpusWriter:
    return CorpusWriter(folder=folder, identity={"name": "n", "source": source}, notes={"licence": "free"})


def test_totals_add_up_and_the_ledger_has_a_line_for_each_reject(tmp_path) -> None:
    writer = writer_for(tmp_path / "corpus")
    assert writer.finished() is None
    writer.start()
    for number in range(5):
        writer.add(turn(f"t{number}", f"c{number % 2}"))
    writer.reject("x", "silent")
    writer.reject("y.wav", "is empty", unit="file")
    writer.use_file()
    info = writer.finish().info
    assert (info["turns_in"], info["turns_used"], info["turns_rejected"]) == (6, 5, 1)
    assert (info["files_in"], info["files_used"], info["files_rejected"]) == (2, 1, 1)
    assert sum(split["turns"] for split in info["splits"].values()) == 5
    assert info["hours"] == pytest.approx(5 / 60, abs=1e-4) and info["licence"] == "free"
    ledger = [json.loads(line) for line in (tmp_path / "corpus/rejects.jsonl").read_text().splitlines()]
    assert [(line["source"], line["reason"]) for line in ledger] == [("x", "silent"), ("y.wav", "is empty")]
    assert [p.name for p in tmp_path.iterdir()] == ["corpus"]


def test_turns_are_numbered_in_the_order_in_which_they_are_added(tmp_path) -> None:
    writer = writer_for(tmp_path / "corpus")
    writer.start()
    for name in "badc":
        writer.add(turn(name))
    assert [(t.id, t.index) for t in writer.finish().turns()] == [("b", 0), ("a", 1), ("d", 2), ("c", 3)]


def test_a_finished_corpus_is_accepted_and_another_one_refused(tmp_path) -> None:
    writer = writer_for(tmp_path / "corpus")
    writer.start()
    writer.add(turn("a"))
    writer.finish()
    before = (tmp_path / "corpus/corpus.json").stat().st_mtime_ns
    again = writer_for(tmp_path / "corpus").finished()
    assert again is not None and again.turns() == read_corpus(tmp_path / "corpus").turns()
    with pytest.raises(ValueError, match="another corpus.*--output"):
        writer_for(tmp_path / "corpus", "other source").finished()
    assert (tmp_path / "corpus/corpus.json").stat().st_mtime_ns == before


def test_a_folder_of_something_else_is_refused_and_untouched(tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match="exists and is no corpus"):
        writer_for(tmp_path).start()
    assert (tmp_path / "thesis.txt").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    assert writer_for(tmp_path / "empty").finished() is None


def test_files_of_an_interrupted_run_do_not_appear_in_the_next(tmp_path) -> None:
    first = writer_for(tmp_path / "corpus")
    first.start()
    (first.partial / "audio").mkdir()
    (first.partial / "audio/left_over.flac").write_bytes(b"half")
    assert not (tmp_path / "corpus").exists()
    second = writer_for(tmp_path / "corpus")
    second.start()
    second.add(turn("a"))
    second.finish()
    assert sorted(p.name for p in (tmp_path / "corpus").rglob("*")) == [
        "corpus.json",
        "manifest.jsonl",
        "rejects.jsonl",
        "sha256.json",
    ]


def test_a_full_disk_is_an_error_before_anything_is_written(tmp_path, monkeypatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 10_000_000))
    writer = CorpusWriter(folder=tmp_path / "corpus", identity={"name": "n"}, needed_bytes=50_000_000)
    with pytest.raises(ValueError, match="10 MB free: expected 50 MB"):
        writer.start()
    assert not list(tmp_path.iterdir())


def test_a_corpus_without_turns_is_an_error_with_the_first_reasons(tmp_path) -> None:
    writer = writer_for(tmp_path / "corpus")
    writer.start()
    writer.reject("a.wav", "is empty", unit="file")
    with pytest.raises(ValueError, match=r"a\.wav: is empty"):
        writer.finish()
    assert not list(tmp_path.iterdir())
