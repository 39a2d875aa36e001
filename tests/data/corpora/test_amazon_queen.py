"""The corpus of the quickstart: the packaged excerpt, the script, the whole corpus from a small archive."""

import gzip
import hashlib
import json
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from csm.audio.files import check_audio, read_audio
from csm.data.corpora import amazon_queen, amazon_queen_bundle
from csm.data.corpora.amazon_queen import (
    HELD_OUT_SPEAKERS,
    SPEAKER_ALIASES,
    make_excerpt,
    prepare_amazon_queen,
    prepare_excerpt,
)
from csm.data.corpora.amazon_queen_script import EXCERPT_FOLDER, read_lines
from csm.data.manifest import read_manifest, split_of
from tests.data.small_game import make_bundle, mp3


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_script_is_complete() -> None:
    lines = read_lines()
    assert len(lines) == 6544 == len({line.clip for line in lines})
    assert len({line.conversation for line in lines}) == 360
    speakers = {SPEAKER_ALIASES.get(line.speaker, line.speaker) for line in lines}
    assert len(speakers) == 55 and set(HELD_OUT_SPEAKERS) < speakers and "JOE" not in HELD_OUT_SPEAKERS
    counts = Counter(line.speaker for line in lines)
    assert all(counts[speaker] >= 25 for speaker in HELD_OUT_SPEAKERS) and len(HELD_OUT_SPEAKERS) == 6
    assert not set(SPEAKER_ALIASES.values()) & set(SPEAKER_ALIASES), "an alias stands for an alias"


def test_the_excerpt_has_its_documented_sizes(excerpt) -> None:
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
    assert excerpt.held_out_speakers() == HELD_OUT_SPEAKERS


def test_the_excerpt_holds_whole_conversations_split_by_the_hash(excerpt) -> None:
    by_conversation = Counter(line.conversation for line in read_lines())
    for conversation in excerpt.conversations:
        assert len(conversation.turns) == by_conversation[conversation.id]
        assert conversation.split == split_of(conversation.id)


def test_the_licence_and_the_notice_travel_with_the_corpus(excerpt) -> None:
    assert (excerpt.root / "LICENSE.txt").read_bytes() == (EXCERPT_FOLDER / "LICENSE.txt").read_bytes()
    assert "modified version" in (excerpt.root / "NOTICE.md").read_text(encoding="utf-8")
    assert "modified" in excerpt.info["modified"]


def test_the_audio_matches_the_manifest(excerpt) -> None:
    for turn in excerpt.turns()[::25]:
        info = check_audio(excerpt.root / turn.audio)
        assert (info.sample_rate, info.channels) == (11_025, 1)
        assert info.duration == pytest.approx(turn.duration, abs=1e-5)
        assert read_audio(excerpt.root / turn.audio, sample_rate=16_000, end=turn.end).abs().max() > 0.01


def test_the_excerpt_is_reproducible_also_after_an_interruption(excerpt, tmp_path, monkeypatch) -> None:
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


def test_the_small_archive_becomes_a_corpus_with_a_full_ledger(small_deb, tmp_path) -> None:
    corpus = prepare_amazon_queen(tmp_path / "corpus", archive=small_deb)
    assert [turn.id for turn in corpus.turns()] == ["020001P2", "020006J1"]
    assert corpus.turns()[0].speaker == "ANDERSON" and corpus.turns()[1].index == 1
    assert (corpus.info["turns_in"], corpus.info["turns_used"], corpus.info["turns_rejected"]) == (
        6544,
        2,
        6542,
    )
    assert corpus.held_out_speakers() == HELD_OUT_SPEAKERS
    ledger = [json.loads(line) for line in (corpus.root / "rejects.jsonl").read_text().splitlines()]
    assert len(ledger) == 6542
    assert ledger[0]["source"] == "020006P1" and "cannot be used" in ledger[0]["reason"]
    assert prepare_amazon_queen(tmp_path / "corpus", archive=tmp_path / "gone").turns() == corpus.turns()


def test_a_corpus_folder_without_held_out_speakers_is_accepted(small_deb, tmp_path) -> None:
    written = prepare_amazon_queen(tmp_path / "corpus", archive=small_deb).info
    del written["held_out_speakers"]
    (tmp_path / "corpus/corpus.json").write_text(json.dumps(written), encoding="utf-8")
    assert prepare_amazon_queen(tmp_path / "corpus").held_out_speakers() == ()


def test_a_failed_download_leaves_no_folder(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(amazon_queen_bundle.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="apt-get"):
        prepare_amazon_queen(tmp_path / "corpus")
    assert not list(tmp_path.iterdir())


def test_the_excerpt_is_reproducible_from_the_bundle(tmp_path, monkeypatch) -> None:
    bundle = make_bundle({"020001P2.SB": mp3(1.0), "020006J1.SB": mp3(0.5)})
    monkeypatch.setattr(amazon_queen, "get_bundle", lambda archive: bundle)
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
