"""A turn is its channel and interval of the file, which is checked against the digests of its own corpus."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from csm.audio.files import write_audio
from csm.data.manifest import Conversation, Corpus, Turn, join_corpora
from csm.data.turn_audio import BATCH_SECONDS, BATCH_TURNS, audio_digests, encoder_batches, read_turn
from csm.system.digests import entered_digest, record_digests, sha256_of


def made(root: Path, name: str) -> Corpus:
    sound = torch.arange(16_000).repeat(2, 1) / 32_768 * torch.tensor([[1.0], [-1.0]])
    write_audio(root / "a.wav", sound, 8000)
    record_digests(root, ["a.wav"])
    turn = Turn(
        id=f"{name}-0",
        conversation=name,
        index=0,
        speaker="ANN",
        text="hi",
        audio="a.wav",
        start=0.5,
        end=1.0,
        channel=1,
    )
    return Corpus(root=root, conversations=(Conversation(id=name, split="train", turns=(turn,)),))


def test_a_turn_is_its_channel_and_interval(tmp_path: Path) -> None:
    corpus = made(tmp_path, "one")
    (turn,) = corpus.turns()
    expected = -torch.arange(4000, 8000)[None] / 32_768
    torch.testing.assert_close(read_turn(corpus, turn, 8000), expected, atol=1e-4, rtol=0)
    late = replace(turn, end=9.0)
    with pytest.raises(ValueError, match="a.wav"):
        read_turn(corpus, late, 8000)


def test_damage_is_found_alone_and_among_joined_corpora(tmp_path: Path) -> None:
    one, two = (made(tmp_path / name, name) for name in ("one", "two"))
    joined = join_corpora([one, two])
    assert joined.root == tmp_path
    for turn in joined.turns():
        assert read_turn(joined, turn, 8000).shape == (1, 4000)
    path = tmp_path / "two" / "a.wav"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    first, second = joined.turns()
    read_turn(joined, first, 8000)
    for corpus, turn in ((joined, second), (two, two.turns()[0])):
        with pytest.raises(ValueError, match="another SHA-256"):
            read_turn(corpus, turn, 8000)


def test_digests_of_audio_are_those_entered_in_its_own_corpus_or_computed(tmp_path: Path) -> None:
    one, two = (made(tmp_path / name, name) for name in ("one", "two"))
    (tmp_path / "two" / "sha256.json").unlink()
    (tmp_path / "one" / "a.wav").write_bytes(b"other sound")
    first, second = join_corpora([one, two]).conversations
    joined = join_corpora([one, two])
    entered = entered_digest(tmp_path / "one" / "a.wav", tmp_path / "one")
    assert audio_digests(joined, first) == {"one/a.wav": entered}
    assert audio_digests(joined, second) == {"two/a.wav": sha256_of(tmp_path / "two" / "a.wav")}
    assert entered != sha256_of(tmp_path / "one" / "a.wav")


@pytest.mark.parametrize("longest", [0.5, 12.0, 400.0])
def test_batches_of_an_encoder_hold_every_turn_once_and_never_more_than_the_ones_before(longest) -> None:
    draw = torch.Generator().manual_seed(0)
    kept = {"conversation": "c", "index": 0, "speaker": "ANN", "text": "", "audio": "a.wav"}
    lengths = (longest * torch.rand(150, generator=draw)).clamp_min(0.01).tolist()
    turns = [Turn(id=str(number), end=length, **kept) for number, length in enumerate(lengths)]
    batches = list(encoder_batches(turns))
    assert sorted(int(turn.id) for batch in batches for turn in batch) == list(range(150))
    sizes = [max(turn.duration for turn in batch) for batch in batches]
    assert sizes == sorted(sizes, reverse=True)
    for batch, size in zip(batches, sizes, strict=True):
        assert len(batch) <= BATCH_TURNS and (len(batch) == 1 or len(batch) * size <= BATCH_SECONDS)
    assert batches == list(encoder_batches(turns[::-1]))
