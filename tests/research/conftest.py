"""A tiny encoded corpus of four conversations a split, and the base recipe of questions about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from csm.audio.files import write_audio
from csm.data.manifest import Conversation, Turn, write_manifest
from csm.recipes.named import recipe
from csm.recipes.run_config import RunConfig
from csm.recipes.steps.encode import encode_corpus
from csm.research.material import Material
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.training import engine as engine_file
from csm.training.distributed import DistributedContext

CPU = torch.device("cpu")
RATE = 11_025
WORDS = ("say a few words", "what was that", "no more of it", "yes")


class Small(NamedTuple):
    """A base recipe and the codes of its corpus."""

    base: RunConfig
    codes: Path

    def material(self, **changes: object) -> Material:
        """Returns what questions measure on."""
        return Material(recipe=self.base, codes=self.codes, **{"lines": 0, **changes})


def write_corpus(root: Path) -> None:
    """Tones of 0.5 to 1.7 s by two speakers, six turns a conversation."""
    conversations = []
    for split, count in (("train", 4), ("validation", 1), ("test", 4)):
        for number in range(count):
            turns = []
            for index in range(6):
                seconds = 1.7 if index == 1 else 0.5 + 0.1 * index
                clock = torch.arange(int(seconds * RATE)) / RATE
                tone = torch.sin(2 * torch.pi * (120 + 60 * (index % 2) + 40 * number * clock) * clock)
                name = f"{split}{number}_{index}"
                write_audio(root / f"{name}.wav", 0.3 * tone[None], RATE)
                kept = {"conversation": f"{split}{number}", "index": index, "speaker": "AB"[index % 2]}
                text = WORDS[(index + number) % 4]
                turns.append(Turn(id=name, audio=f"{name}.wav", text=text, end=seconds, **kept))
            conversations.append(Conversation(id=f"{split}{number}", split=split, turns=tuple(turns)))
    write_manifest(root / "manifest.jsonl", conversations)
    (root / "corpus.json").write_text('{"name": "tones"}')


def tiny_base(corpus: Path) -> RunConfig:
    """The tiny recipe with local speakers and letters, two steps and windows of three turns."""
    run = recipe("tiny")
    training = replace(
        run.training, steps=2, warmup_steps=1, checkpoint_every=2, validate_every=2, tracker="none"
    )
    return replace(
        run,
        corpus=str(corpus),
        training=training,
        model=replace(run.model, d_model=16, local_speakers=2, max_speakers=8, letters_per_frame=3),
        data=replace(run.data, rows_per_micro_batch=120, max_rows=100, transcribe_share=0.4),
        sampling=replace(run.sampling, max_seconds=0.6),
    )


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Returns the corpus, encoded by a tokenizer of random weights."""
    folder = tmp_path_factory.mktemp("research")
    write_corpus(folder / "corpus")
    base = tiny_base(folder / "corpus")
    torch.manual_seed(0)
    ConversationalRVQ(base.tokenizer).save_pretrained(folder / "tokenizer")
    alone = DistributedContext(rank=0, size=1, local_size=1, device=CPU)
    encode_corpus(base, folder / "tokenizer", folder / "codes", alone)
    return Small(base, folder / "codes")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains without DeepSpeed and on one thread."""
    monkeypatch.setattr(engine_file, "deepspeed_installed", lambda: False)
    monkeypatch.setattr("csm.training.distributed.available_cores", lambda: 1)
