"""The quickstart corpus: the container format, the packaged excerpt, the texts."""

import gzip
import hashlib
import io
import json
import struct
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile

from csm.audio.files import check_audio, read_audio
from csm.data.corpora import amazon_queen
from csm.data.corpora.amazon_queen import (
    EXCERPT_FOLDER,
    HELD_OUT_SPEAKERS,
    SPEAKER_ALIASES,
    clean_text,
    make_excerpt,
    prepare_amazon_queen,
    prepare_excerpt,
    read_bundle,
    read_entries,
    read_lines,
)
from csm.data.manifest import read_manifest, split_of


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def mp3(seconds: float) -> bytes:
    file = io.BytesIO()
    samples = 0.3 * np.sin(2 * np.pi * 200 * np.arange(int(11_025 * seconds)) / 11_025)
    soundfile.write(file, samples, 11_025, format="MP3")
    return file.getvalue()


def make_bundle(clips: dict[str, bytes]) -> bytes:
    table, content, offset = b"", b"", 15 + 21 * len(clips)
    for name, stream in clips.items():
        table += struct.pack(">12sBII", name.encode(), 1, offset + len(content), len(stream))
        content += stream
    return b"QTBL" + bytes(9) + struct.pack(">H", len(clips)) + table + content


def make_deb(path: Path, bundle: bytes, member: str = amazon_queen.BUNDLE_MEMBER) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        info = tarfile.TarInfo(f"./{member}")
        info.size = len(bundle)
        tar.addfile(info, io.BytesIO(bundle))
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": data.getvalue()}
    content = b"!<arch>\n"
    for name, blob in parts.items():
        content += (
            f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(blob):<10}`\n".encode()
            + blob
            + b"\n" * (len(blob) % 2)
        )
    path.write_bytes(content)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A .deb with three clips in place of the real one, its checksums set accordingly."""
    clips = {"020001P2.SB": mp3(1.0), "020006J1.SB": mp3(0.5), "020006P1.SB": b"broken", "NOISE.RL": b"x"}
    bundle = make_bundle(clips)
    make_deb(tmp_path / "game.deb", bundle)
    monkeypatch.setattr(amazon_queen, "BUNDLE_BYTES", len(bundle))
    monkeypatch.setattr(amazon_queen, "BUNDLE_SHA256", hashlib.sha256(bundle).hexdigest())
    digest = hashlib.sha256((tmp_path / "game.deb").read_bytes()).hexdigest()
    monkeypatch.setattr(amazon_queen, "ARCHIVE_SHA256", digest)
    return tmp_path / "game.deb"


def test_the_script_is_whole() -> None:
    lines = read_lines()
    assert len(lines) == 6544 == len({line.clip for line in lines})
    assert len({line.conversation for line in lines}) == 360
    speakers = {SPEAKER_ALIASES.get(line.speaker, line.speaker) for line in lines}
    assert len(speakers) == 55 and set(HELD_OUT_SPEAKERS) < speakers and "JOE" not in HELD_OUT_SPEAKERS
    counts = Counter(line.speaker for line in lines)
    assert all(counts[speaker] >= 25 for speaker in HELD_OUT_SPEAKERS) and len(HELD_OUT_SPEAKERS) == 6
    assert not set(SPEAKER_ALIASES.values()) & set(SPEAKER_ALIASES), "an alias leads to an alias"


def test_every_text_is_left_with_words_and_without_marks() -> None:
    for line in read_lines():
        text = clean_text(line.text)
        assert text and any(letter.isalnum() for letter in text), line
        assert not set(text) & set("^_@<>#$&"), line
        assert clean_text(text) == text


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("@@ She's beautiful! @@", "She's beautiful!"),
        ("the Super Soldier Treatment^_.", "the Super Soldier Treatment."),
        ("<CRUNCH>", "(crunch)"),
        ("(sigh)", "(sigh)"),
        ("&#($!!, he got away!", "he got away!"),
        ("What?!!!! (Really)", "What?!!!! (really)"),
        ('I guess that\'s a "no".', 'I guess that\'s a "no".'),
    ],
)
def test_texts_are_cleaned_of_marks(written: str, spoken: str) -> None:
    assert clean_text(written) == spoken


def test_the_excerpt_keeps_its_promises(excerpt) -> None:
    turns = excerpt.turns()
    minutes = Counter()
    for turn in turns:
        minutes[turn.speaker] += turn.duration / 60
    assert 45 <= minutes.total() <= 60
    assert minutes["JOE"] >= 0.5 * minutes.total()
    assert sum(len({t.speaker for t in c.turns}) >= 2 for c in excerpt.conversations) >= 10
    assert sum(path.stat().st_size for path in EXCERPT_FOLDER.iterdir()) <= 8_000_000
    assert {c.split for c in excerpt.conversations} == {"train", "validation", "test"}
    test = [c for c in excerpt.conversations if c.split == "test"]
    assert sum({t.speaker for t in c.turns} > {"JOE"} and len(c.turns) >= 30 for c in test) >= 2
    assert sum(t.speaker == "JOE" and t.duration > 1.6 for c in test for t in c.turns) >= 8
    assert excerpt.info["turns_in"] == excerpt.info["turns_used"] == len(turns)
    assert excerpt.info["turns_rejected"] == 0


def test_the_excerpt_holds_whole_conversations_split_by_the_hash(excerpt) -> None:
    by_conversation = Counter(line.conversation for line in read_lines())
    for conversation in excerpt.conversations:
        assert len(conversation.turns) == by_conversation[conversation.id]
        assert conversation.split == split_of(conversation.id)


def test_the_licence_and_the_notice_travel_with_the_corpus(excerpt) -> None:
    assert (excerpt.root / "LICENSE.txt").read_bytes() == (EXCERPT_FOLDER / "LICENSE.txt").read_bytes()
    assert "modified version" in (excerpt.root / "NOTICE.md").read_text(encoding="utf-8")
    assert "modified" in excerpt.info["modified"]


def test_the_audio_is_what_the_manifest_says(excerpt) -> None:
    for turn in excerpt.turns()[::25]:
        info = check_audio(excerpt.root / turn.audio)
        assert (info.sample_rate, info.channels) == (11_025, 1)
        assert info.duration == pytest.approx(turn.duration, abs=1e-5)
        assert read_audio(excerpt.root / turn.audio, sample_rate=16_000, end=turn.end).abs().max() > 0.01


def test_the_excerpt_is_the_same_every_time_and_after_an_interruption(excerpt, tmp_path, monkeypatch) -> None:
    write, written = amazon_queen._write_clip, []

    def interrupted(*arguments) -> None:
        written.append(arguments)
        if len(written) == 100:
            raise KeyboardInterrupt
        write(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(amazon_queen, "_write_clip", interrupted)
        prepare_excerpt(tmp_path / "again")
    assert not (tmp_path / "again").exists()
    prepare_excerpt(tmp_path / "again")
    assert tree(tmp_path / "again") == tree(excerpt.root)


def test_the_small_archive_becomes_a_corpus_with_a_full_ledger(small, tmp_path) -> None:
    corpus = prepare_amazon_queen(tmp_path / "corpus", archive=small)
    assert [turn.id for turn in corpus.turns()] == ["020001P2", "020006J1"]
    assert corpus.turns()[0].speaker == "ANDERSON" and corpus.turns()[1].index == 1
    assert (corpus.info["turns_in"], corpus.info["turns_used"], corpus.info["turns_rejected"]) == (
        6544,
        2,
        6542,
    )
    ledger = [json.loads(line) for line in (corpus.root / "rejects.jsonl").read_text().splitlines()]
    assert len(ledger) == 6542
    assert ledger[0]["source"] == "020006P1" and "cannot be used" in ledger[0]["reason"]
    assert prepare_amazon_queen(tmp_path / "corpus", archive=tmp_path / "gone").turns() == corpus.turns()


def test_the_excerpt_is_made_alike_twice(small, tmp_path, monkeypatch) -> None:
    bundle = make_bundle({"020001P2.SB": mp3(1.0), "020006J1.SB": mp3(0.5)})
    monkeypatch.setattr(amazon_queen, "_bundle", lambda archive: bundle)
    monkeypatch.setattr(amazon_queen, "EXCERPT_CONVERSATIONS", ("AND1",))
    for name in ("a", "b"):
        make_excerpt(tmp_path / name)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    assert sorted(tree(tmp_path / "a")) == ["clips.tar", "manifest.jsonl"]
    (conversation,) = read_manifest(tmp_path / "a/manifest.jsonl")
    assert [turn.speaker for turn in conversation.turns] == ["ANDERSON", "JOE"]


def test_the_packaged_manifest_and_tar_belong_together() -> None:
    with tarfile.open(EXCERPT_FOLDER / "clips.tar") as tar:
        members = tar.getmembers()
    turns = [turn for c in read_manifest(EXCERPT_FOLDER / "manifest.jsonl") for turn in c.turns]
    assert [member.name for member in members] == [f"{turn.id}.mp3" for turn in turns]
    for member, turn in zip(members, turns, strict=True):
        assert member.isfile() and abs(member.size / 2000 - turn.duration) < 0.2
    assert gzip.decompress((EXCERPT_FOLDER / "lines.tsv.gz").read_bytes()).count(b"\n") == 6545


def test_a_changed_archive_is_refused(small) -> None:
    small.write_bytes(small.read_bytes() + b"x")
    with pytest.raises(ValueError, match="SHA-256 is .*, expected"):
        read_bundle(small)


def test_a_changed_bundle_is_refused(small, monkeypatch) -> None:
    monkeypatch.setattr(amazon_queen, "BUNDLE_SHA256", "0" * 64)
    with pytest.raises(ValueError, match="another SHA-256"):
        read_bundle(small)


@pytest.mark.parametrize("content", [b"", b"PK no ar archive", b"!<arch>\n"])
def test_what_is_no_deb_is_refused(tmp_path, monkeypatch, content: bytes) -> None:
    (tmp_path / "a.deb").write_bytes(content)
    monkeypatch.setattr(amazon_queen, "ARCHIVE_SHA256", hashlib.sha256(content).hexdigest())
    with pytest.raises(ValueError, match=r"\.deb|data\.tar\.xz"):
        read_bundle(tmp_path / "a.deb")
    with pytest.raises(ValueError, match="apt-get download"):
        read_bundle(tmp_path / "none.deb")


@pytest.mark.parametrize(
    "bundle",
    [b"", b"RIFF" * 8, b"QTBL" + bytes(9) + b"\xff\xff", make_bundle({"A.SB": b"1234"})[:-1]],
)
def test_a_broken_table_is_refused(bundle: bytes) -> None:
    with pytest.raises(ValueError, match="bundle"):
        read_entries(bundle)


def test_the_table_gives_back_the_clips() -> None:
    clips = {"020001P2.SB": b"abc", "C70D_243.SB": b"", "PIC.PCX": b"zz", "LONGNAME1.SB": b"defg"}
    bundle = make_bundle(clips)
    entries = read_entries(bundle)
    assert {f"{name}.SB": bundle[o : o + s] for name, (o, s) in entries.items()} == {
        name: stream for name, stream in clips.items() if name.endswith(".SB")
    }


def test_without_apt_the_way_out_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(amazon_queen.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="--archive"):
        prepare_amazon_queen(tmp_path / "corpus")
    failed = subprocess.CompletedProcess([], 100, "", "E: Unable to locate package")
    monkeypatch.setattr(amazon_queen.shutil, "which", lambda name: "/usr/bin/apt-get")
    monkeypatch.setattr(amazon_queen.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ValueError, match="Unable to locate package.*--archive"):
        prepare_amazon_queen(tmp_path / "corpus")
    assert not list(tmp_path.iterdir())
