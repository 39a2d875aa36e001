"""A small talker of random weights with the voices JOE and FAYE, and a corpus with their recordings."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from csm.data.manifest import CORPUS_NAME, MANIFEST_NAME, Conversation, Corpus, Turn, write_manifest
from csm.generation.sampling import SamplingConfig
from csm.generation.talker import Talker
from csm.generation.voices import Voice
from tests.small_tokenizer import small_tokenizer

RATE = 8000
PITCH = {"JOE": 110.0, "FAYE": 220.0}


@pytest.fixture
def talker(tiny_model) -> Talker:
    """Speaks turns of at most 1.2 s at 8 kHz, 640 samples a frame."""
    torch.manual_seed(0)
    tokenizer = small_tokenizer(RATE)
    voices = {
        name: Voice(name, number, torch.eye(8)[number : number + 1], torch.eye(4)[number : number + 1])
        for number, name in enumerate(("JOE", "FAYE"))
    }
    sampling = SamplingConfig(max_seconds=1.2, seed=3)
    return Talker(model=tiny_model(), tokenizer=tokenizer, voices=voices, sampling=sampling)


@pytest.fixture
def corpus(tmp_path) -> Corpus:
    """Tones of 1.6 to 1.8 s: a train conversation, and a test conversation of eight turns."""
    root = tmp_path / "corpus"
    root.mkdir()
    conversations = (
        conversation(root, "train", ["JOE", "FAYE", "JOE", "FAYE", "JOE"]),
        conversation(root, "test", ["JOE", "FAYE"] * 4),
    )
    write_manifest(root / MANIFEST_NAME, conversations)
    (root / CORPUS_NAME).write_text(json.dumps({"name": "small"}), encoding="utf-8")
    return Corpus(root=root, conversations=conversations, info={"name": "small"})


def conversation(root: Path, split: str, speakers: list[str]) -> Conversation:
    """Writes a recording for each turn."""
    turns = []
    for index, speaker in enumerate(speakers):
        seconds = 1.6 + 0.1 * (index % 3)
        time = np.arange(round(seconds * RATE)) / RATE
        tone = 0.3 * np.sin(2 * np.pi * PITCH[speaker] * time) * (1 + np.sin(20 * time)) / 2
        name = f"{split}_{index}"
        soundfile.write(root / f"{name}.wav", tone.astype(np.float32), RATE)
        text = f"You and whose {'navy' if index % 2 else 'army'}?"
        turns.append(
            Turn(
                id=name,
                conversation=split,
                index=index,
                speaker=speaker,
                text=text,
                audio=f"{name}.wav",
                end=seconds,
            )
        )
    return Conversation(id=split, split=split, turns=tuple(turns))
