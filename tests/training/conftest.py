"""A tiny corpus of tones and a tokenizer that fits it, for the tests of the tokenizer's training."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from csm.audio.files import write_audio
from csm.data.manifest import Conversation, Corpus, Turn
from csm.data.utterances import UtteranceConfig, UtteranceDataset
from csm.system.log import configure_log, log
from csm.tokenizer.config import TokenizerConfig

RATE = 8000


@pytest.fixture(autouse=True)
def shown() -> Iterator[None]:
    """Messages go to stderr as in a command."""
    before = log.handlers, log.level, log.propagate
    configure_log()
    yield
    log.handlers, log.level, log.propagate = before


@pytest.fixture(scope="session")
def small_config() -> TokenizerConfig:
    """Six codebooks of 32, for 8 kHz."""
    return TokenizerConfig(
        sample_rate=RATE,
        n_codebooks=6,
        codebook_size=32,
        semantic_codebooks=2,
        codebook_dim=16,
        hops_per_frame=4,
        strides=(2, 2),
        encoder_widths=(16, 24, 32),
        encoder_depths=(1, 1, 1),
        decoder_widths=(32, 24, 16),
        decoder_depths=(1, 1, 1),
        speaker_dim=8,
        emotion_dim=4,
    )


@pytest.fixture(scope="session")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> tuple[UtteranceDataset, ...]:
    """Gliding tones of two speakers, 0.4 to 1 s: for training and for validation."""
    root = tmp_path_factory.mktemp("corpus")
    conversations = []
    for split, count in (("train", 16), ("validation", 4)):
        turns = []
        for index in range(count):
            seconds = 0.4 + 0.04 * index
            time = torch.arange(int(seconds * RATE)) / RATE
            tone = torch.sin(2 * torch.pi * (120 + 30 * index + 80 * time) * time)
            audio = f"audio/{split}{index}.wav"
            write_audio(root / audio, 0.3 * tone[None], RATE)
            kept = {"conversation": split, "index": index, "speaker": "AB"[index % 2], "text": "yes no"}
            turns.append(Turn(id=f"{split}{index}", audio=audio, end=seconds, **kept))
        conversations.append(Conversation(id=split, split=split, turns=tuple(turns)))
    corpus = Corpus(root=root, conversations=tuple(conversations))
    options = {"sample_rate": RATE, "samples_per_frame": 640, "seed": 0, "micro_batches": 2}
    config = UtteranceConfig(items=4, slice_frames=4)
    return tuple(
        UtteranceDataset(corpus, split, config=config, **options) for split in ("train", "validation")
    )
