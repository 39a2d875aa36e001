"""A corpus folder appears complete or not at all, and its ledger lists every reject."""

import gc
import hashlib
import json
import shutil
from collections import namedtuple
from dataclasses import replace

import pytest
import torch

from csm.audio import files
from csm.audio.files import write_audio
from csm.data import record_file
from csm.data.corpora import corpus_writer
from csm.data.corpora.corpus_writer import CorpusWriter
from csm.data.corpora.layouts.source import SourceConversation, SourceTurn
from csm.data.corpora.recordings import prepare_recordings
from csm.data.manifest import Turn, read_corpus
from csm.data.word_times import Word


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


def test_other_files_of_an_interrupted_run_do_not_appear_in_the_next(tmp_path) -> None:
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


@pytest.mark.parametrize("killed_at", [0, 1, 2])
def test_a_killed_preparation_is_resumed_with_the_same_bytes(tmp_path, monkeypatch, killed_at) -> None:
    source = tmp_path / "source"
    for number in range(3):
        noise = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(number)) * 0.1
        write_audio(source / f"r{number}.wav", noise, 16_000)
    monkeypatch.setattr(files, "BLOCK_SAMPLES", 4000)
    heard: list[str] = []

    def transcriber(recording, path, info, tree) -> SourceConversation:
        heard.append(recording.id)
        tree.reject_turn(f"{recording.id}, 0.9 s", "is like no speaker")
        if recording.id == "r1":
            raise ValueError("no speech is detected")
        words = (Word("hello", 0.1, 0.2),)
        turn = SourceTurn(speaker="Zo\u00eb", text="hello", audio=recording.audio, end=0.5, words=words)
        return SourceConversation(id=recording.id, turns=[turn], timeline=True)

    def prepared(name: str):
        return prepare_recordings(tmp_path / name, source=source, transcriber=transcriber)

    prepared("whole")
    copy = corpus_writer.copy_audio

    def killed(path, target, info) -> None:
        if path.name == f"r{killed_at}.wav" or killed_at == 1:
            target.parent.mkdir(exist_ok=True)
            target.with_name(f"{target.name}.part").write_bytes(b"half")
            raise KeyboardInterrupt
        copy(path, target, info)

    monkeypatch.setattr(corpus_writer, "copy_audio", killed)
    with pytest.raises(KeyboardInterrupt):
        prepared("again")
    monkeypatch.setattr(corpus_writer, "copy_audio", copy)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / ".again.partial").rglob("*.flac")}
    heard.clear()
    prepared("again")
    assert len(heard) < 3, "what is transcribed is not transcribed again"
    contents = [
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("whole", "again")
    ]
    assert contents[0] == contents[1] and len(contents[0]) > 5
    for path, changed in before.items():
        assert (tmp_path / "again" / "audio" / path.name).stat().st_mtime_ns == changed
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("text", "seconds", "problem"),
    [
        ("word " * 30, 3.0, "40 letters per second, expected at most 28"),
        ("no", 6.0, "2 letters in 6.0 s, expected at least 1 per second"),
        ("word " * 10, 3.0, None),
        ("Yes!", 0.1, None),
        ("", 30.0, None),
        ("no", 4.0, None),
    ],
)
def test_a_text_that_does_not_fit_its_sound_is_named_with_its_figure(
    tmp_path, text, seconds, problem
) -> None:
    writer = writer_for(tmp_path / "corpus")
    writer.start()
    writer.add(replace(turn("a"), text=text, end=seconds))
    found = writer.finish().info.get("implausible_texts")
    assert found == (None if problem is None else [f"a: {problem}"])


def write_sixty(folder) -> CorpusWriter:
    """Adds turns of seven conversations in turns, words of a third, and rejects of every kind."""
    writer = writer_for(folder)
    writer.start()
    for number in range(60):
        start, name = 0.1 * number, f"t{number}"
        made = replace(
            turn(name, f"c{number % 7}"),
            text=f"caf\u00e9 {number}",
            speaker=("Ana", "Bo")[number % 2],
            start=start,
            end=start + 1 / (1 + number),
        )
        words = [Word("caf\u00e9", start, start + 0.05)] if number % 3 else ()
        writer.add(made, split="validation" if number % 7 == 3 else "train", words=words)
        if number % 4 == 0:
            seconds = 0.3 * number if number % 8 else None
            writer.reject(name, "silent", seconds=seconds, unit="file" if number % 12 == 0 else "turn")
    return writer


@pytest.mark.parametrize("held", [2**24, 1000])
def test_the_files_of_a_corpus_are_the_same_bytes_wherever_its_turns_wait(tmp_path, monkeypatch, held):
    monkeypatch.setattr(record_file, "HELD_BYTES", held)
    before = turns_in_memory()
    writer = write_sixty(tmp_path / "corpus")
    assert turns_in_memory() == before
    writer.finish()
    names = ("manifest.jsonl", "words.jsonl", "rejects.jsonl", "corpus.json", "sha256.json")
    assert sorted(path.name for path in (tmp_path / "corpus").iterdir()) == sorted(names)
    digests = [hashlib.sha256((tmp_path / "corpus" / name).read_bytes()).hexdigest()[:8] for name in names]
    assert digests == ["68da4b16", "3ca593b8", "6e6592b1", "796bf078", "9131c26c"]


def turns_in_memory() -> int:
    gc.collect()
    return sum(type(found) is Turn for found in gc.get_objects())
