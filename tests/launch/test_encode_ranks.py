"""Encoding as two real ranks: killed while it runs, resumed, and the same bytes as one process writes."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from csm.audio.files import write_audio
from csm.data.code_shards import read_index
from csm.data.manifest import Conversation, Turn, write_manifest
from csm.recipes.named import recipe
from csm.recipes.steps.encode import encode_corpus
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.training.distributed import DistributedContext

ROOT = Path(__file__).resolve().parents[2]
ALONE = DistributedContext(rank=0, size=1, local_size=1, device=torch.device("cpu"))


def make_corpus(folder: Path) -> None:
    """A conversation of noise in each split: three shards."""
    conversations = []
    for split, count in (("train", 40), ("validation", 3), ("test", 3)):
        turns = []
        for index in range(count):
            generator = torch.Generator().manual_seed(index)
            noise = torch.randn(1, 11_025, generator=generator) * 0.1
            write_audio(folder / f"{split}{index}.wav", noise, 11_025)
            kept = {"conversation": split, "index": index, "speaker": "AB"[index % 2], "end": 1.0}
            turns.append(Turn(id=f"{split}{index}", audio=f"{split}{index}.wav", text="hello", **kept))
        conversations.append(Conversation(id=split, split=split, turns=tuple(turns)))
    write_manifest(folder / "manifest.jsonl", conversations)
    (folder / "corpus.json").write_text('{"name": "noise"}')


def start(corpus: Path, tokenizer: Path, output: Path) -> subprocess.Popen:
    words = ["--recipe", "tiny", "--set", f"corpus={corpus}", "--tokenizer", str(tokenizer)]
    command = [sys.executable, "-m", "csm", "encode", "--ranks", "2", *words, "--output", str(output)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


@pytest.mark.processes
def test_two_ranks_that_are_killed_and_started_again_write_what_one_process_writes(tmp_path):
    make_corpus(tmp_path / "corpus")
    torch.manual_seed(0)
    ConversationalRVQ(recipe("tiny").tokenizer).save_pretrained(tmp_path / "tokenizer")
    run = replace(recipe("tiny"), corpus=str(tmp_path / "corpus"))
    encode_corpus(run, tmp_path / "tokenizer", tmp_path / "one", ALONE)
    codes = tmp_path / "two"
    process = start(tmp_path / "corpus", tmp_path / "tokenizer", codes)
    while not any(codes.glob("codes_*.safetensors")) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert read_index(codes) is None, "it was killed before it was finished"
    kept = {path.name: path.stat().st_mtime_ns for path in codes.glob("codes_*.safetensors")}
    assert 1 <= len(kept) < 3
    again = start(tmp_path / "corpus", tmp_path / "tokenizer", codes)
    out, _ = again.communicate(timeout=120)
    assert again.returncode == 0, out
    assert contents(codes) == contents(tmp_path / "one")
    assert all((codes / name).stat().st_mtime_ns == time_of for name, time_of in kept.items())
