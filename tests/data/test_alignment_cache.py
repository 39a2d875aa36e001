"""An alignment is computed once for each content, wherever the corpus lies, and again where it changes."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import csm
from csm.audio.files import write_audio
from csm.data import alignment_cache, forced_alignment
from csm.data.alignment_cache import aligned_corpus, cache_folder
from csm.data.manifest import Conversation, Corpus, Turn
from csm.text import ByteCodec

CODEC, RATE = ByteCodec(), 8_000


@pytest.fixture
def computed(monkeypatch, tmp_path) -> list[Path]:
    """The roots of the corpora that are aligned in fact."""
    real, found = alignment_cache.align_corpus, []

    def counted(corpus: Corpus, *arguments):
        found.append(corpus.root)
        return real(corpus, *arguments)

    monkeypatch.setattr(alignment_cache, "align_corpus", counted)
    monkeypatch.setattr(forced_alignment, "FEWEST_STEPS", 2)
    monkeypatch.setenv("CSM_CACHE", str(tmp_path / "cache"))
    return found


def corpus(root: Path, seed: int = 0) -> Corpus:
    turns = []
    for number in range(3):
        generator = torch.Generator().manual_seed(10 * seed + number)
        write_audio(root / f"{number}.wav", 0.1 * torch.randn(1, RATE, generator=generator), RATE)
        kept = {"conversation": "c", "index": number, "speaker": "A", "text": f"text {number}"}
        turns.append(Turn(id=f"t{number}", audio=f"{number}.wav", end=1.0, **kept))
    return Corpus(root=root, conversations=(Conversation(id="c", split="train", turns=tuple(turns)),))


def texts_changed(given: Corpus) -> Corpus:
    (conversation,) = given.conversations
    turns = tuple(replace(turn, text=turn.text.upper()) for turn in conversation.turns)
    return replace(given, conversations=(replace(conversation, turns=turns),))


def test_the_second_command_reads_the_same_bits_also_of_a_moved_corpus(computed, tmp_path) -> None:
    first = aligned_corpus(corpus(tmp_path / "a"), RATE, CODEC, "bytes")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    again = [aligned_corpus(corpus(tmp_path / name), RATE, CODEC, "bytes") for name in ("a", "b")]
    assert computed == [tmp_path / "a"]
    for found in again:
        assert list(found) == list(first) == ["t0", "t1", "t2"]
        assert all(torch.equal(found[name], first[name]) for name in first)


def test_other_sound_texts_codecs_rates_and_code_are_aligned_anew(computed, tmp_path, monkeypatch) -> None:
    own = corpus(tmp_path / "a")
    aligned_corpus(own, RATE, CODEC, "bytes")
    aligned_corpus(own, 16_000, CODEC, "bytes")
    aligned_corpus(own, RATE, ByteCodec(3), "bytes")
    aligned_corpus(texts_changed(own), RATE, CODEC, "bytes")
    aligned_corpus(corpus(tmp_path / "b", seed=1), RATE, CODEC, "bytes")
    monkeypatch.setattr(alignment_cache, "code_digest", lambda: "other rules of pronunciation")
    aligned_corpus(own, RATE, CODEC, "bytes")
    assert len(computed) == 6


def test_a_damaged_alignment_is_computed_again(computed, tmp_path) -> None:
    own = corpus(tmp_path / "a")
    mapped = aligned_corpus(own, RATE, CODEC, "bytes")
    first = {name: ends.clone() for name, ends in mapped.items()}
    (path,) = cache_folder().rglob("alignment.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    again = aligned_corpus(own, RATE, CODEC, "bytes")
    assert len(computed) == 2 and all(torch.equal(first[name], again[name]) for name in first)


def test_where_nothing_can_be_kept_it_is_computed_each_time(computed, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CSM_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        assert list(aligned_corpus(corpus(tmp_path / "a"), RATE, CODEC, "bytes")) == ["t0", "t1", "t2"]
    assert len(computed) == 2


def test_the_name_of_an_alignment_is_that_of_before_it_was_streamed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(alignment_cache, "code_digest", lambda: "code")
    (tmp_path / "a.flac").write_bytes(b"sound")
    turns = tuple(
        Turn(
            id=f"t{i}",
            conversation="c",
            index=i,
            speaker="A",
            text=["", "d\u00e9j\u00e0"][i],
            audio="a.flac",
            end=1.5,
        )
        for i in range(2)
    )
    own = Corpus(root=tmp_path, conversations=(Conversation(id="c", split="train", turns=turns),))
    assert alignment_cache.alignment_key(own, RATE, "bytes 3") == "2ca80d14e6d57e1998cbdbbdb3db82a4"


def test_every_module_that_texts_are_read_by_counts_as_code(monkeypatch) -> None:
    hashed: list[Path] = []
    monkeypatch.setattr(alignment_cache, "sha256_of", lambda path: hashed.append(path) or "digest")
    alignment_cache.code_digest()
    for path in hashed:
        for line in path.read_text().splitlines():
            if found := re.match(r"from csm\.(\w+) import|from csm import (\w+) as", line):
                module = Path(csm.__file__).parent / f"{found[1] or found[2]}.py"
                assert not module.is_file() or module in hashed, f"{path.name} imports {module.name}"
