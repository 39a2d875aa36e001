"""One run of the tiny recipe on a corpus of tones: tokenizer, codes and model."""

from __future__ import annotations

from collections.abc import Iterator
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
from csm.recipes.steps.train_model import train_model
from csm.recipes.steps.train_tokenizer import train_tokenizer
from csm.training import engine as engine_file
from csm.training.distributed import DistributedContext

CPU = torch.device("cpu")
ALONE = DistributedContext(rank=0, size=1, local_size=1, device=CPU)


class Steps(NamedTuple):
    """A recipe and the folders that its steps have made."""

    run: RunConfig
    tokenizer: Path
    model: Path

    @property
    def codes(self) -> Path:
        """Folder of the codes."""
        return self.model / "codes"


def write_corpus(root: Path) -> None:
    """Gliding tones of 1.3 to 1.9 s: ten turns a split of the speakers A and B."""
    conversations = []
    for split in ("train", "validation", "test"):
        turns = []
        for index in range(10):
            seconds = 1.3 + 0.06 * index
            time = torch.arange(int(seconds * 11_025)) / 11_025
            tone = torch.sin(2 * torch.pi * (120 + 20 * index + 60 * time) * time)
            audio = f"{split}{index}.wav"
            write_audio(root / audio, 0.3 * tone[None], 11_025)
            kept = {"conversation": split, "index": index, "speaker": "AAB"[index % 3], "end": seconds}
            turns.append(Turn(id=f"{split}{index}", audio=audio, text="say a few words", **kept))
        conversations.append(Conversation(id=split, split=split, turns=tuple(turns)))
    write_manifest(root / "manifest.jsonl", conversations)
    (root / "corpus.json").write_text('{"name": "tones"}')


def tiny_run(corpus: Path) -> RunConfig:
    """The tiny recipe at two steps."""
    run = recipe("tiny")
    training = replace(
        run.training, steps=2, warmup_steps=1, checkpoint_every=2, validate_every=2, tracker="none"
    )
    return replace(
        run,
        corpus=str(corpus),
        tokenizer_training=training,
        training=training,
        data=replace(run.data, rows_per_micro_batch=120, max_rows=100, time_shifts=2),
        sampling=replace(run.sampling, max_seconds=0.8),
    )


@pytest.fixture(scope="package")
def steps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Steps]:
    """The steps, done once, with the tokenizer beside the run and not in it."""
    folder = tmp_path_factory.mktemp("steps")
    write_corpus(folder / "corpus")
    made = Steps(tiny_run(folder / "corpus"), folder / "tokenizer", folder / "model")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_file, "deepspeed_installed", lambda: False)
        patch.setattr("csm.training.distributed.available_cores", lambda: 1)
        train_tokenizer(made.run, made.tokenizer, CPU)
        encode_corpus(made.run, made.tokenizer, made.codes, ALONE)
        train_model(made.run, made.codes, made.model, CPU)
    yield made
    torch.set_num_threads(threads)
