"""Digests name a corpus by its content, wherever it lies, and number several."""

from __future__ import annotations

from pathlib import Path

from csm.data.corpus_digests import corpus_digests
from csm.system.digests import record_digests


def made(folder: Path, audio: bytes) -> Path:
    folder.mkdir(parents=True)
    (folder / "manifest.jsonl").write_text("{}\n")
    (folder / "a.wav").write_bytes(audio)
    record_digests(folder, ["manifest.jsonl", "a.wav"])
    return folder


def test_a_moved_corpus_has_the_same_digests_and_other_audio_has_others(tmp_path: Path) -> None:
    here, there, other = (
        made(tmp_path / name, sound) for name, sound in (("a", b"1"), ("b/c", b"1"), ("d", b"2"))
    )
    assert corpus_digests(here) == corpus_digests(there) != corpus_digests(other)
    assert set(corpus_digests(here)) == {"corpus/manifest.jsonl", "corpus/audio"}


def test_several_corpora_are_numbered_in_their_order(tmp_path: Path) -> None:
    one, two = made(tmp_path / "one", b"1"), made(tmp_path / "two", b"2")
    found = corpus_digests(f"{one},{two}")
    assert found["corpus 1/audio"] == corpus_digests(two)["corpus/audio"] != found["corpus 0/audio"]
    assert len(found) == 4 and corpus_digests(tmp_path) == {}
