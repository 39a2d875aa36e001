"""Memory and time of data of any size, made up: a training rank, and what reads or writes a manifest.

    python benchmarks/data_scale.py --folder /tmp/scale --hours 10 1000 100000 --turns 10000 1000000

Turns last 3 s and stand in conversations of 30. All shards of the index are one file of random codes of the
real size, and texts repeat: what a rank maps and reads is as large as with a real corpus. Each size runs in a
process of its own, which opens table and shards, draws step 1 and then step 1,000,000 of 8 micro-batches.
"Anonymous" memory is what the process itself holds; mapped pages are the system's cache, which it may drop.
100,000 hours take 10 GB of disk.

`--turns` are sizes of corpora. Of each, one process plans its encoding, one makes the table of its turns,
whose texts are aligned, two open it as the trainings of a tokenizer and of a semantic tokenizer do and draw
eight micro-batches, one writes it with six words a turn (`CorpusWriter`), and one computes the voice of a
speaker of half of its turns. A conversation is one audio file; sound is silence of 0.1 s. Seconds are CPU
time; "peak" is the highest anonymous memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch

from csm.data.code_companions import read_alignment, write_alignment
from csm.data.code_shards import (
    CodeShards,
    EncodedTurn,
    read_code_shards,
    write_code_shards,
    write_shard,
)
from csm.data.corpora.corpus_writer import CorpusWriter
from csm.data.dataset import ConversationDataset, DatasetConfig
from csm.data.manifest import Conversation, Corpus, Turn, read_corpus, write_manifest
from csm.data.phone_labels import PhoneLabels
from csm.data.turn_table import TableFacts
from csm.data.turn_table_file import read_table, table_of
from csm.data.utterances import UtteranceConfig, UtteranceDataset
from csm.data.word_times import Word
from csm.generation.corpus_voices import voice_of
from csm.recipes.sharded_encoding import planned_shards
from csm.system.digests import record_digests
from csm.text import ByteCodec

TURN_S, FRAMES, CODEBOOKS, TURNS_PER_CONVERSATION, SHARD_TURNS = 3.0, 37, 32, 30, 90_000
TEXT = b"this is what is said now"
BLOCK = 1 << 22
NAMES = {np.dtype(kind): name for kind, name in ((np.int64, "I64"), (np.int32, "I32"), (np.uint8, "U8"))}
FACTS = TableFacts(
    split="train",
    source="made-up",
    speakers=("A", "B"),
    left_out=0,
    left_out_minutes=0.0,
    left_out_ids=(),
    silent=(),
)


def columns(turns: int) -> dict[str, tuple[type, int, object]]:
    """Returns element type, length, and the function of a range of places, of every array of a table."""
    size = len(ByteCodec().encode_turn(TEXT.decode(), 0))
    text, ident = np.frombuffer(TEXT, np.uint8), np.frombuffer(b"turn_0000", np.uint8)
    conversations = turns // TURNS_PER_CONVERSATION

    def of(value: int):
        return lambda places: np.full(len(places), value)

    return {
        "conversations": (np.int64, conversations + 1, lambda p: p * TURNS_PER_CONVERSATION),
        "id_starts": (np.int64, turns + 1, lambda p: p * len(ident)),
        "text_starts": (np.int64, turns + 1, lambda p: p * len(text)),
        "ends_starts": (np.int64, turns + 1, of(0)),
        "speaker": (np.int32, turns, lambda p: p % 2),
        "frames": (np.int32, turns, of(FRAMES)),
        "text_rows": (np.int32, turns, of(size)),
        "shard": (np.int32, turns, lambda p: p // SHARD_TURNS),
        "row": (np.int32, turns, lambda p: p % SHARD_TURNS),
        "id": (np.uint8, turns * len(ident), lambda p: ident[p % len(ident)]),
        "text": (np.uint8, turns * len(text), lambda p: text[p % len(text)]),
    }


def write_made_up(path: Path, hours: float) -> None:
    """Writes a table of a size in blocks, as safetensors."""
    made = columns(int(hours * 3600 / TURN_S) // TURNS_PER_CONVERSATION * TURNS_PER_CONVERSATION)
    facts = json.dumps(asdict(FACTS)).encode()
    header: dict[str, object] = {"ends": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}}
    offset = 0
    for name, (kind, length, _) in made.items():
        end = offset + length * np.dtype(kind).itemsize
        header[name] = {"dtype": NAMES[np.dtype(kind)], "shape": [length], "data_offsets": [offset, end]}
        offset = end
    end = offset + len(facts)
    header["facts"] = {"dtype": "U8", "shape": [len(facts)], "data_offsets": [offset, end]}
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        for kind, length, of in made.values():
            for first in range(0, length, BLOCK):
                of_block = of(np.arange(first, min(first + BLOCK, length)))
                file.write(of_block.astype(kind).tobytes())
        file.write(facts)


def write_codes(folder: Path) -> None:
    """Writes one shard of random codes and its index entry."""
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 1024, (SHARD_TURNS, CODEBOOKS, FRAMES), generator=generator, dtype=torch.int16)
    rest = torch.zeros(FRAMES, 3).half(), torch.zeros(64).half()
    turns = [EncodedTurn(f"t{n}", row, *rest) for n, row in enumerate(codes)]
    info = write_shard(folder / "codes_0000.safetensors", turns)
    record_digests(folder, ["codes_0000.safetensors"])
    (folder / "shard.json").write_text(json.dumps(asdict(info)))


def memory() -> dict[str, float]:
    """Returns anonymous and mapped memory of this process in MB."""
    lines = (line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    found = {name: int(value.split()[0]) / 1e3 for name, value in lines if name in ("RssAnon", "RssFile")}
    return {"anonymous": found["RssAnon"], "mapped": found["RssFile"]}


def measure(folder: Path, hours: float) -> dict[str, float]:
    """Opens the data of a size and draws two steps; returns times in s and memory in MB."""
    from csm.data.code_shards import ShardInfo

    before, began = memory(), time.perf_counter()
    shard = ShardInfo(**json.loads((folder / "shard.json").read_text()))
    path = folder / f"table_{hours:g}.safetensors"
    encoded = CodeShards(folder, [shard] * (int(hours * 3600 / TURN_S) // SHARD_TURNS + 1))
    config = DatasetConfig(rows_per_micro_batch=1200, max_rows=400)
    data = ConversationDataset(
        read_table(path, encoded, {"A": 0, "B": 1}),
        codec=ByteCodec(),
        num_codebooks=CODEBOOKS,
        end_code=1024,
        config=config,
        micro_batches=8,
        seed=0,
    )
    found = {"open_s": time.perf_counter() - began}
    for step in (1, 1_000_000):
        began = time.perf_counter()
        for micro_batch in range(8):
            data.batch(step, micro_batch)
        found[f"step_{step}_s"] = time.perf_counter() - began
    after = memory()
    grown = {f"{name}_mb": after[name] - before[name] for name in after}
    return {"table_gb": path.stat().st_size / 1e9, **found, **grown}


def conversations(turns: int) -> Iterator[Conversation]:
    """Yields made-up conversations of the speakers A and B, each of one audio file."""
    for number in range(turns // TURNS_PER_CONVERSATION):
        name = f"conversation-{number:07d}"
        made = (
            Turn(
                id=f"{name}_{index:03d}",
                conversation=name,
                index=index,
                speaker="AB"[index % 2],
                text=TEXT.decode(),
                audio=f"audio/{name}.flac",
                start=TURN_S * index,
                end=TURN_S * (index + 1),
            )
            for index in range(TURNS_PER_CONVERSATION)
        )
        yield Conversation(id=name, split="train", turns=tuple(made))


def write_corpus(folder: Path, turns: int) -> None:
    """Writes a made-up corpus without its audio, whose SHA-256 are entered, and codes and alignment of it."""
    folder.mkdir()
    write_manifest(folder / "manifest.jsonl", conversations(turns))
    record_digests(folder, ["manifest.jsonl"])
    entries = json.loads((folder / "sha256.json").read_text())["files"]
    names = (conversation.turns[0].audio for conversation in conversations(turns))
    entries |= {name: {"size": 1, "sha256": f"{number:064x}"} for number, name in enumerate(names)}
    (folder / "sha256.json").write_text(json.dumps({"files": entries}, indent=1))
    codes = torch.zeros(1, 1).short(), torch.zeros(1, 3).half(), torch.zeros(1).half()
    ids = (turn.id for conversation in conversations(turns) for turn in conversation.turns)
    write_code_shards(folder / "codes", (EncodedTurn(name, *codes) for name in ids), {})
    ends = torch.ones(len(ByteCodec().encode_turn(TEXT.decode(), 0)) - 1).cumsum(0)
    ids = (turn.id for conversation in conversations(turns) for turn in conversation.turns)
    write_alignment(folder / "codes", ((name, ends) for name in ids), "bytes")
    (folder / "corpus.json").write_text('{"name": "made-up"}')


def plan(folder: Path) -> None:
    """Opens a corpus and plans its encoding."""
    tokenizer = SimpleNamespace(config=SimpleNamespace(n_codebooks=CODEBOOKS, frame_rate=12.5))
    planned_shards(read_corpus(folder), tokenizer, "", 1)


def make_table(folder: Path) -> None:
    """Opens a corpus and makes the table of its turns."""
    corpus, encoded = read_corpus(folder), read_code_shards(folder / "codes")
    numbers, ends = {"A": 0, "B": 1}, read_alignment(folder / "codes", "bytes")
    path = folder / "tables" / "train.safetensors"
    table_of(corpus, encoded, "train", ByteCodec(), numbers=numbers, ends=ends, path=path)


def draw_utterances(corpus: Corpus) -> UtteranceDataset:
    """Opens the utterances of a corpus and draws steps 1 and 1,000,000."""
    sizes = {"sample_rate": 24_000, "samples_per_frame": 1920, "micro_batches": 4, "seed": 0}
    with patch("csm.data.turn_sounds.read_turn", lambda *_: torch.zeros(1, 2400)):
        found = UtteranceDataset(corpus, "train", config=UtteranceConfig(), **sizes)
        for step in (1, 1_000_000):
            for micro_batch in range(4):
                found.batch(step, micro_batch)
    return found


def start_tokenizer(folder: Path) -> None:
    """Opens a corpus as the training of a tokenizer does."""
    draw_utterances(read_corpus(folder))


def start_semantic(folder: Path) -> None:
    """Opens a corpus as the training of a semantic tokenizer does."""
    corpus, ends = read_corpus(folder), read_alignment(folder / "codes", "bytes")
    labels = PhoneLabels(ByteCodec(), ((turn.id, turn.text) for turn in corpus.turns()), ends)
    turn = draw_utterances(corpus).turns[-1]
    labels.steps(turn.id, turn.text, 0.0, 150)


def write_again(folder: Path) -> None:
    """Writes the corpus once more, beside it."""
    with tempfile.TemporaryDirectory(dir=folder.parent) as other:
        writer = CorpusWriter(folder=Path(other) / "corpus", identity={"name": "made-up"})
        writer.start()
        for conversation in conversations(int(folder.name.split("_")[1])):
            for turn in conversation.turns:
                words = [Word("word", turn.start + 0.5 * n, turn.start + 0.5 * n + 0.4) for n in range(6)]
                writer.add(turn, split=conversation.split, words=words)
        writer.finish()


def make_voice(folder: Path) -> None:
    """Computes a voice of half of the turns."""
    voice_of(read_corpus(folder), read_code_shards(folder / "codes"), "A", 0)


STAGES: dict[str, Callable[[Path], None]] = {
    "plan": plan,
    "table": make_table,
    "tokenizer": start_tokenizer,
    "semantic": start_semantic,
    "write": write_again,
    "voice": make_voice,
}


def peak_of(stage: Callable[[Path], None], folder: Path) -> dict[str, float]:
    """Runs a stage; returns its CPU time and the highest anonymous memory beyond that before, every 5 ms."""
    peaks, done = [memory()["anonymous"]], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            peaks.append(memory()["anonymous"])

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.thread_time()
    stage(folder)
    seconds = time.thread_time() - began
    done.set()
    watcher.join()
    return {"seconds": seconds, "peak_mb": max(peaks) - peaks[0]}


def print_corpora(folder: Path, sizes: list[int]) -> None:
    """Prints what the stages take of each size."""
    print("| turns | manifest, MB | " + " | ".join(f"{stage}, s | peak, MB" for stage in STAGES) + " |")
    print("|" + "---|" * (2 + 2 * len(STAGES)))
    for turns in sizes:
        corpus = folder / f"corpus_{turns}"
        if not (corpus / "corpus.json").is_file():
            write_corpus(corpus, turns)
        row = [(corpus / "manifest.jsonl").stat().st_size / 1e6]
        for stage in STAGES:
            command = [sys.executable, __file__, "--folder", str(corpus), "--stage", stage]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            row += json.loads(done.stdout.splitlines()[-1]).values()
        print(f"| {turns:,} | " + " | ".join(f"{value:.1f}" for value in row) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, required=True, help="for the made-up corpus")
    parser.add_argument("--hours", type=float, nargs="*", default=[10, 1000, 100_000])
    parser.add_argument("--turns", type=int, nargs="*", default=[10_000, 1_000_000])
    parser.add_argument("--stage", choices=STAGES, help="used inside: run one stage in this process")
    parser.add_argument("--measure", type=float, help="used inside: measure one size in this process")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.stage is not None:
        print(json.dumps(peak_of(STAGES[options.stage], options.folder)))
        return
    if options.measure is not None:
        print(json.dumps(measure(options.folder, options.measure)))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    if options.turns:
        print_corpora(options.folder, options.turns)
    if options.hours and not (options.folder / "shard.json").is_file():
        write_codes(options.folder)
    if not options.hours:
        return
    print("| hours | table, GB | open, s | step 1, s | step 1,000,000, s | anonymous, MB | mapped, MB |")
    print("|" + "---|" * 7)
    for hours in options.hours:
        path = options.folder / f"table_{hours:g}.safetensors"
        if not path.is_file():
            write_made_up(path, hours)
            record_digests(options.folder, [path.name])
        command = [sys.executable, __file__, "--folder", str(options.folder), "--measure", str(hours)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        row = json.loads(done.stdout.splitlines()[-1])
        print(f"| {hours:g} | " + " | ".join(f"{value:.2f}" for value in row.values()) + " |", flush=True)


if __name__ == "__main__":
    main()
