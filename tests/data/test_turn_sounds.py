"""Sounds of turns: read where they are asked for, held up to a bound, and the batches are the same bits."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch

from csm.audio.files import write_audio
from csm.data import manifest, turn_sounds, utterances
from csm.data.manifest import Conversation, Corpus, Turn, read_manifest, write_manifest
from csm.data.turn_sounds import TurnSounds
from csm.data.utterances import UtteranceConfig, UtteranceDataset

RATE, FRAME = 8000, 640


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    """Twelve turns of noise of 0.3 to 1.4 s, at the tokenizer's own rate."""
    turns = []
    for number in range(12):
        seconds = 0.3 + 0.1 * number
        noise = torch.randn(1, int(RATE * seconds), generator=torch.Generator().manual_seed(number)) * 0.1
        write_audio(tmp_path / f"{number}.wav", noise, RATE)
        kept = {"conversation": "c", "index": number, "speaker": "AB"[number % 2], "text": "yes"}
        turns.append(Turn(id=f"t{number}", audio=f"{number}.wav", end=seconds, **kept))
    return Corpus(root=tmp_path, conversations=(Conversation(id="c", split="train", turns=tuple(turns)),))


def test_no_more_is_held_than_the_bound(corpus, monkeypatch):
    monkeypatch.setattr(turn_sounds, "HELD_BYTES", 40_000)
    lengths = np.array([int(RATE * turn.duration) for turn in corpus.turns()])
    sounds = TurnSounds(corpus, corpus.turns(), lengths, RATE)
    assert not sounds.fit
    for place in (*range(12), *range(11, -1, -1)):
        sound = sounds[place]
        assert sound.turn.id == f"t{place}"
        assert len(sound.samples) == int(RATE * (0.3 + 0.1 * place)) == lengths[place]
        assert 2 * sum(len(held.samples) for held in sounds._held.values()) <= 40_000
    assert len(sounds._held) > 1


def test_batches_of_a_corpus_beyond_memory_are_those_of_one_in_memory(corpus, monkeypatch):
    def dataset() -> UtteranceDataset:
        config = UtteranceConfig(items=4, slice_frames=3, max_seconds=1.0)
        sizes = {"sample_rate": RATE, "samples_per_frame": FRAME, "micro_batches": 1}
        return UtteranceDataset(corpus, "train", config=config, seed=3, **sizes)

    held = dataset()
    monkeypatch.setattr(turn_sounds, "HELD_BYTES", 30_000)
    read = dataset()
    assert held.sounds.fit and not read.sounds.fit
    for step in (1, 5, 2):
        a, b = held.batch(step, 0), read.batch(step, 0)
        assert a.ids == b.ids
        for name, value in vars(a).items():
            # Mean and deviation are taken over the turns in another order.
            if name == "statistics":
                torch.testing.assert_close(value, b.statistics, atol=1e-5, rtol=1e-5)
            elif isinstance(value, torch.Tensor):
                assert torch.equal(value, vars(b)[name]), name


def test_only_some_turns_of_a_large_corpus_are_read_before_the_first_step(corpus, monkeypatch):
    monkeypatch.setattr(turn_sounds, "HELD_BYTES", 30_000)
    monkeypatch.setattr(utterances, "MEASURED", 3)
    read, read_turn = [], turn_sounds.read_turn
    monkeypatch.setattr(
        turn_sounds, "read_turn", lambda c, turn, rate: (read.append(turn.id), read_turn(c, turn, rate))[1]
    )
    sizes = {"sample_rate": RATE, "samples_per_frame": FRAME, "micro_batches": 1, "seed": 0}
    data = UtteranceDataset(corpus, "train", config=UtteranceConfig(items=2, slice_frames=3), **sizes)
    assert len(read) == 3
    data.batch(1, 0)
    assert len(read) <= 5
    excluded = replace(data.config, exclude_speakers=("B",))
    assert len(UtteranceDataset(corpus, "train", config=excluded, **sizes)) == 6


def test_no_turns_are_held_of_a_corpus_beyond_memory_and_one_in_memory_reads_each_once(corpus, monkeypatch):
    write_manifest(corpus.root / "manifest.jsonl", corpus.conversations)
    read = Corpus(root=corpus.root, conversations=read_manifest(corpus.root / "manifest.jsonl"))
    sizes = {"sample_rate": RATE, "samples_per_frame": FRAME, "micro_batches": 1, "seed": 0}
    config, parsed, parse = UtteranceConfig(items=2, slice_frames=3), [], manifest._parsed
    monkeypatch.setattr(manifest, "_parsed", lambda line: parsed.append(line) or parse(line))
    data = UtteranceDataset(read, "train", config=config, **sizes)
    data.batch(1, 0)
    assert len(parsed) <= 2
    del data
    monkeypatch.setattr(turn_sounds, "HELD_BYTES", 1)
    before = _turns_in_memory()
    data = UtteranceDataset(read, "train", config=config, **sizes)
    batch = data.batch(1, 0)
    assert [data.turns[place].id for place in batch.places] == batch.ids
    assert _turns_in_memory() - before <= 1


def _turns_in_memory() -> int:
    gc.collect()
    return sum(type(found) is Turn for found in gc.get_objects())
