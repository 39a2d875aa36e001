"""LibriSpeech from a small tree in its layout: pairing, ledger, reproducibility, download."""

import hashlib
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from csm.data.corpora import downloads, librispeech
from csm.data.corpora.librispeech import pair_chapters, prepare_librispeech


def make_tree(root: Path, chapters: dict[str, int]) -> None:
    """READER-CHAPTER -> number of utterances, 0.2 s each."""
    for name, count in chapters.items():
        reader, chapter = name.split("-")
        folder = root / reader / chapter
        folder.mkdir(parents=True)
        lines = []
        for number in range(count):
            samples = 0.2 * np.sin(np.arange(3200) * (int(reader) + number) / 40)
            soundfile.write(folder / f"{name}-{number:04d}.flac", samples, 16_000)
            lines.append(f"{name}-{number:04d} CHAPTER {chapter} LINE {number}\n")
        (folder / f"{name}.trans.txt").write_text("".join(lines))


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "downloads/dev-clean/LibriSpeech/dev-clean"
    make_tree(root, {"84-1": 3, "84-2": 2, "174-5": 4, "251-9": 1})
    return root


def prepare(tree: Path, output: Path):
    return prepare_librispeech(output, downloads=tree.parents[2], subset="dev-clean")


def test_utterances_of_two_readers_alternate_and_are_marked_synthetic(tree, tmp_path) -> None:
    corpus = prepare(tree, tmp_path / "out")
    assert len(corpus.turns()) == 10 and all(turn.synthetic for turn in corpus.turns())
    assert corpus.speakers() == ["174", "251", "84"]
    for conversation in corpus.conversations:
        readers = [turn.speaker for turn in conversation.turns]
        assert len(set(readers)) == 2
        shorter = min(readers.count(reader) for reader in set(readers))
        assert all(a != b for a, b in zip(readers[: 2 * shorter], readers[1 : 2 * shorter], strict=False))
        for reader in set(readers):
            own = [turn.id for turn in conversation.turns if turn.speaker == reader]
            assert own == sorted(own)
    assert corpus.turns()[0].text.startswith("chapter ")
    for turn in corpus.turns():
        source = tree.joinpath(*turn.id.split("-")[:2], f"{turn.id}.flac")
        assert (corpus.root / turn.audio).read_bytes() == source.read_bytes()


def test_unusable_utterances_are_in_the_ledger_and_totals_add_up(tree, tmp_path) -> None:
    (tree / "84/1/84-1-0001.flac").write_bytes(b"")
    (tree / "174/5/174-5-0000.flac").unlink()
    soundfile.write(tree / "251/9/251-9-0007.flac", np.full(100, 0.1), 16_000)
    (tree / "84/2/84-2.trans.txt").write_text("84-2-0000 FINE\n84-2-0001\n")
    corpus = prepare(tree, tmp_path / "out")
    ledger = [json.loads(line) for line in (corpus.root / "rejects.jsonl").read_text().splitlines()]
    assert {line["source"] for line in ledger} == {"84-1-0001", "174-5-0000", "251-9-0007", "84-2-0001"}
    info = corpus.info
    assert (info["turns_in"], info["turns_used"], info["turns_rejected"]) == (11, 7, 4)


def test_two_runs_write_equal_bytes(tree, tmp_path) -> None:
    first, second = prepare(tree, tmp_path / "a"), prepare(tree, tmp_path / "b")
    for path in sorted(p for p in first.root.rglob("*") if p.is_file()):
        assert path.read_bytes() == (second.root / path.relative_to(first.root)).read_bytes()


@pytest.mark.parametrize("sizes", [(1,), (3,), (1, 1), (5, 2, 2), (9, 1, 1), (4, 4, 4, 3)])
def test_every_chapter_is_in_exactly_one_pair_of_different_readers(sizes: tuple) -> None:
    names = [f"{reader}-{chapter}" for reader, size in enumerate(sizes) for chapter in range(size)]
    pairs = pair_chapters(names)
    assert sorted(name for pair in pairs for name in pair) == sorted(names)
    assert all(len(pair) == 1 or pair[0].split("-")[0] != pair[1].split("-")[0] for pair in pairs)
    alone = sum(len(pair) == 1 for pair in pairs)
    assert alone == max(sum(sizes) % 2, 2 * max(sizes) - sum(sizes))
    assert pair_chapters(names[::-1]) == pairs


def test_the_archive_is_downloaded_verified_and_extracted(tree, tmp_path, monkeypatch) -> None:
    archive = tmp_path / "source.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tree.parent, "LibriSpeech")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setitem(librispeech.SUBSETS, "dev-clean", (digest, 5.4))
    monkeypatch.setattr(downloads, "_fetch", lambda url, part: part.write_bytes(archive.read_bytes()))
    corpus = prepare_librispeech(tmp_path / "out", downloads=tmp_path / "fresh")
    assert len(corpus.turns()) == 10
    monkeypatch.setitem(librispeech.SUBSETS, "dev-clean", ("0" * 64, 5.4))
    with pytest.raises(ValueError, match="SHA-256"):
        prepare_librispeech(tmp_path / "other", downloads=tmp_path / "fresher")
    assert not (tmp_path / "other").exists()


def test_an_unknown_subset_is_refused_with_the_names_of_the_others(tmp_path) -> None:
    with pytest.raises(ValueError, match="dev-clean, dev-other"):
        prepare_librispeech(tmp_path / "out", downloads=tmp_path, subset="train-clean")
