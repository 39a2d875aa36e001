"""Damages files that the program reads; what comes of it is a line that names the file, or nothing at all.

    python tests/fuzz.py --mutations 2000

Each file of each kind is mutated so often: bits flipped, cut, lengthened, values of its JSON exchanged or
nested deep, replaced by a pickle that would touch a file, by a folder or a link. In every second trial the
SHA-256 that names the file is put right, as a tool that edits files would.
Then the reader must raise a `ValueError` or `OSError`, fall back to an older checkpoint, or return what it
returned before; after a hash was put right, other values may come back too, but never anything else.
"""

from __future__ import annotations

import argparse
import json
import pickle
import random
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from csm.config import load, save
from csm.data.code_companions import (
    read_alignment,
    read_code_vectors,
    write_alignment,
    write_code_vectors,
)
from csm.data.code_shards import EncodedTurn, read_code_shards, write_code_shards
from csm.data.manifest import Conversation, Turn, read_corpus, write_manifest
from csm.generation.sampling import SamplingConfig
from csm.generation.voices import Voice, read_voices, write_voices
from csm.network.io.weight_files import Weight, stored_weights, write_weights
from csm.system.digests import DIGESTS_NAME, record_digests
from csm.system.files import file_sha256
from csm.training.checkpoint import save_checkpoint
from csm.training.checkpoint_reader import newest_state
from csm.training.distributed import DistributedContext
from csm.training.metrics import MetricsFile, read_metrics
from csm.training.options import TrainingConfig
from csm.training.plain_engine import PlainEngine
from csm.training.run_folder import is_complete, require_same_run, write_complete, write_run

ALONE = DistributedContext(rank=0, size=1, local_size=1, device=torch.device("cpu"))
CONFIG = TrainingConfig(micro_batches=1, ema_decay=0.9)


class Kind(NamedTuple):
    """A kind of folder, the files in it that are damaged, and its reader."""

    write: Callable[[Path], None]
    files: tuple[str, ...]
    read: Callable[[Path], Any]


class Poison:
    """Touches a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


def engines(seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    return {"net": PlainEngine("net", nn.Linear(3, 4), CONFIG, ALONE)}


def write_checkpoints(folder: Path) -> None:
    made = engines(0)
    for step in (1, 2):
        save_checkpoint(folder, step, made, ALONE, keep=3)
        for fragment in made["net"].fragments():
            fragment.slots["weight"].add_(1.0)


def read_checkpoints(folder: Path) -> Any:
    made = engines(1)
    found = newest_state(folder, made, ALONE)
    assert found is not None
    found[1].load(made)
    weights = [fragment.slots["weight"].tolist() for fragment in made["net"].fragments()]
    # An older one is a right answer; its weights must then be its own.
    return "old" if found[0].name == "step_00000001" else "new", found[1].step, weights


def write_codes(folder: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(0, 9, (2, 4), generator=generator)
    turns = [
        EncodedTurn(name, codes + i, torch.full((4, 3), 0.5), torch.ones(2)) for i, name in enumerate("abc")
    ]
    write_code_shards(folder, turns, {"corpus": "c"})
    write_alignment(folder, {name: torch.arange(3.0) for name in "abc"}, "bytes")
    write_code_vectors(folder, torch.rand(2, 9, 3, generator=generator))


def read_codes(folder: Path) -> Any:
    shards = {name: [part.tolist() for part in turn[1:4]] for name, turn in read_code_shards(folder).items()}
    ends, vectors = read_alignment(folder, "bytes"), read_code_vectors(folder)
    assert ends is not None and vectors is not None
    return shards, {name: value.tolist() for name, value in ends.items()}, vectors.tolist()


def write_corpus(folder: Path) -> None:
    kept = {"speaker": "A", "text": "abc", "audio": "audio/a.wav", "end": 1.5}
    turns = tuple(Turn(id=f"c_{i}", conversation="c", index=i, **kept) for i in range(3))
    write_manifest(folder / "manifest.jsonl", [Conversation(id="c", split="train", turns=turns)])
    (folder / "corpus.json").write_text('{"name": "fuzz", "hours": 1.5}')
    record_digests(folder, ["manifest.jsonl", "corpus.json"])


def write_voice(folder: Path) -> None:
    write_voices(folder, {name: Voice(name, i, torch.ones(1, 3)) for i, name in enumerate("AB")})
    save(SamplingConfig(), folder / "sampling.json")
    tensor = torch.arange(12.0).view(3, 4)
    write_weights(folder, {"w": Weight((3, 4), torch.float32, lambda: tensor)}, 10**6)
    record_digests(folder, ["voices.json", "model.safetensors"])


def read_voice(folder: Path) -> Any:
    voices = {name: (v.number, v.speaker.tolist()) for name, v in read_voices(folder).items()}
    weights = {name: weight.read().tolist() for name, weight in stored_weights(folder).items()}
    load(SamplingConfig, folder / "sampling.json")  # edited by people: other values are no damage
    return voices, weights


def write_run_folder(folder: Path) -> None:
    (folder / "weights").write_bytes(b"w")
    write_run(folder, {"a": {"b": 1}}, CONFIG, ALONE, 0, {}, {"codes": "x"})
    write_complete(folder, CONFIG.steps, [folder / "weights"])
    MetricsFile(folder, after_step=0).write(1, "train", {"loss": 1.0})


def read_run_folder(folder: Path) -> Any:
    require_same_run(folder, {"a": {"b": 1}}, CONFIG, {"codes": "x"})
    is_complete(folder, CONFIG.steps)
    MetricsFile(folder, after_step=5)
    read_metrics(folder / "metrics.jsonl")


STEP = "step_00000002/"
KINDS = {
    "checkpoint": Kind(
        write_checkpoints,
        tuple(STEP + name for name in ("rank_00000.safetensors", "rank_00000.json", "MANIFEST.json")),
        read_checkpoints,
    ),
    "codes": Kind(
        write_codes,
        ("codes_0000.safetensors", "index.json", "alignment.safetensors", "code_vectors.safetensors"),
        read_codes,
    ),
    "corpus": Kind(write_corpus, ("manifest.jsonl", "corpus.json"), lambda folder: read_corpus(folder)),
    "voice": Kind(write_voice, ("voices.json", "sampling.json", "model.safetensors"), read_voice),
    "run": Kind(write_run_folder, ("run.json", "complete.json", "metrics.jsonl"), read_run_folder),
}
ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**70,
    1.5,
    float("nan"),
    "",
    "../../x",
    "/etc/passwd",
    [],
    {},
    [[1]],
)


def exchanged(value: Any, draw: random.Random) -> Any:
    """Returns JSON with one value anywhere in it exchanged or taken out."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(sorted(value))
        rest = {k: v for k, v in value.items() if k != key}
        what = draw.random()
        return rest if what < 0.1 else {**value, key: exchanged(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.9:
        place = draw.randrange(len(value))
        return [*value[:place], exchanged(value[place], draw), *value[place + 1 :]]
    return draw.choice(ODD)


def mutated_json(data: bytes, draw: random.Random) -> bytes:
    """Returns a JSON file, or a safetensors file's header, with one value exchanged."""
    try:
        if data[:1] in b"{[":
            lines = data.splitlines()
            if len(lines) > 1 and lines[1][:1] == b"{":
                return json.dumps(exchanged(json.loads(lines[0]), draw)).encode() + b"\n"
            return json.dumps(exchanged(json.loads(data), draw)).encode()
        length = int.from_bytes(data[:8], "little")
        header = json.dumps(exchanged(json.loads(data[8 : 8 + length]), draw)).encode()
        return len(header).to_bytes(8, "little") + header + data[8 + length :]
    except ValueError:
        return data + b"\n{"


def damage(path: Path, draw: random.Random, canary: Path) -> None:
    """Mutates a file in one of many ways."""
    data = path.read_bytes()
    way = draw.randrange(12)
    if way < 3:
        flipped = bytearray(data)
        for _ in range(draw.choice((1, 1, 8))):
            flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
    elif way < 7:
        path.write_bytes(mutated_json(data, draw))
    elif way == 7:
        path.write_bytes(data[: draw.randrange(len(data))])
    elif way == 8:
        path.write_bytes(draw.choice((data + b"\0" * 9, data[:8] + data, b"", pickle.dumps(Poison(canary)))))
    elif way == 9:
        deep = draw.choice((b"[" * 10**5, b'{"a":' * 10**5, b'{"files":' + b"[" * 10**5))
        path.write_bytes(draw.choice((deep, len(deep).to_bytes(8, "little") + deep)))
    elif way == 10:
        path.write_bytes(draw.choice((2**62, 10**8)).to_bytes(8, "little") + data[8:])
    else:
        other = path.with_name("elsewhere")
        path.rename(other)
        if draw.random() < 0.5:
            path.mkdir()
        else:
            path.symlink_to(draw.choice((other, Path("/etc/hostname"), path)))


def put_right(folder: Path, path: Path) -> None:
    """Enters the SHA-256 of a damaged file where its true one stood."""
    if not path.is_file():
        return
    manifest = path.parent / ("MANIFEST.json" if path.parent != folder else DIGESTS_NAME)
    if manifest == path or not manifest.is_file():
        return
    names = json.loads(manifest.read_text())
    names["files"][path.name] = {"size": path.stat().st_size, "sha256": file_sha256(path)}
    manifest.write_text(json.dumps(names))


def trial(kind: Kind, folder: Path, draw: random.Random, canary: Path, expected: Any) -> str | None:
    """Damages one file of a folder and reads it; returns what went wrong, or None."""
    path = folder / draw.choice(kind.files)
    damage(path, draw, canary)
    honest = draw.random() < 0.5
    if not honest:
        put_right(folder, path)
    try:
        found = kind.read(folder)
    except (ValueError, OSError):
        found = expected
    except Exception as error:
        return f"{path.name}: {type(error).__name__}: {error}"
    if canary.exists():
        return f"{path.name}: a pickle was opened"
    covered = path.name in ("rank_00000.safetensors", "rank_00000.json") or (folder / DIGESTS_NAME).is_file()
    older = isinstance(found, tuple) and found[:1] == ("old",)
    if honest and covered and found != expected and not older and path.name != "MANIFEST.json":
        return f"{path.name}: other values were read, and no error"
    return None


def fuzz(name: str, mutations: int, seed: int) -> list[str]:
    """Runs the trials of a kind; returns what went wrong."""
    draw, kind = random.Random(f"{name} {seed}"), KINDS[name]
    problems = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        (root / "whole").mkdir()
        kind.write(root / "whole")
        expected = kind.read(root / "whole")
        for number in range(mutations):
            folder = root / "damaged"
            shutil.copytree(root / "whole", folder)
            if isinstance(expected, tuple) or expected is None:
                problem = trial(kind, folder, draw, root / "canary", expected)
            else:  # a corpus stores its folder: compared by content
                fresh = kind._replace(read=lambda folder: kind.read(folder).conversations)
                problem = trial(fresh, folder, draw, root / "canary", expected.conversations)
            if problem is not None:
                problems.append(f"{name} {number}: {problem}")
            shutil.rmtree(folder)
    return problems


def main() -> int:
    """Fuzzes every kind; the exit status is 1 where something went wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mutations", type=int, default=2000, help="of each kind of file")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    failed = 0
    for name, kind in KINDS.items():
        problems = fuzz(name, options.mutations * len(kind.files), options.seed)
        failed += len(problems)
        print(
            f"{name}: {options.mutations * len(kind.files)} mutations, {len(problems)} failures", flush=True
        )
        print("\n".join(problems[:20]))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
