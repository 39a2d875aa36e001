"""A corpus as codes on disk: safetensors shards, readable without the audio."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from csm.system.files import new_file, write_atomically

INDEX_NAME = "index.json"
# Times at which the letters or phones of each turn end.
ALIGNMENT_NAME = "alignment.safetensors"
# What each code adds to the tokenizer's latent.
VECTORS_NAME = "code_vectors.safetensors"
# Turns per shard: at 2.5 s a turn and 32 codebooks a shard has about 2 MB.
TURNS_PER_SHARD = 1024


class EncodedTurn(NamedTuple):
    """One encoded turn.

    Attributes:
        id: Turn id.
        codes: int16 [K, T]. prosody: float16 [T, 3]. speaker: float16 [E], the tokenizer's speaker embedding.
    """

    id: str
    codes: Tensor
    prosody: Tensor
    speaker: Tensor


def shifted_id(turn: str, shift: int) -> str:
    """Returns the id of a turn's encoding in a time shift; shift 0 is the turn itself."""
    return f"{turn}~{shift}" if shift else turn


def write_code_shards(folder: Path, turns: Iterable[EncodedTurn], description: dict[str, object]) -> int:
    """Writes the shards and, last, the index (so that a folder with an index is complete); returns the count.

    Args:
        folder: Made if missing.
        turns: In any order.
        description: Goes into the index: which tokenizer and corpus the codes are of.

    Raises:
        ValueError: Two turns of one id.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / INDEX_NAME).unlink(missing_ok=True)
    places: dict[str, int] = {}
    pending: list[EncodedTurn] = []
    shards = 0

    def flush() -> None:
        nonlocal shards
        tensors = {}
        for turn in pending:
            tensors[f"{turn.id}/codes"] = turn.codes.to(torch.int16).contiguous()
            tensors[f"{turn.id}/prosody"] = turn.prosody.to(torch.float16).contiguous()
            tensors[f"{turn.id}/speaker"] = turn.speaker.to(torch.float16).contiguous()
            places[turn.id] = shards
        with new_file(folder / f"codes_{shards:04d}.safetensors") as file:
            save_file(tensors, file)
        shards += 1
        pending.clear()

    seen: set[str] = set()
    for turn in turns:
        if turn.id in seen:
            raise ValueError(f"turn {turn.id} came twice: expected unique ids")
        seen.add(turn.id)
        pending.append(turn)
        if len(pending) == TURNS_PER_SHARD:
            flush()
    if pending:
        flush()
    write_atomically(folder / INDEX_NAME, json.dumps({**description, "turns": places}, indent=0) + "\n")
    return len(places)


def read_index(folder: Path) -> dict[str, object] | None:
    """Returns the description of finished shards, or None where there are none."""
    path = folder / INDEX_NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def read_code_shards(folder: Path) -> dict[str, EncodedTurn]:
    """Returns all turns by id.

    Raises:
        ValueError: No finished shards there, or one that the index names is missing.
    """
    index = read_index(folder)
    if index is None:
        raise ValueError(
            f"{folder} holds no codes ({INDEX_NAME} expected): run launch/encode_corpus.py first"
        )
    places = index["turns"]
    assert isinstance(places, dict)
    turns: dict[str, EncodedTurn] = {}
    for shard in sorted(set(places.values())):
        path = folder / f"codes_{shard:04d}.safetensors"
        if not path.is_file():
            raise ValueError(f"{path} is missing: delete {folder} and run launch/encode_corpus.py again")
        with safe_open(path, framework="pt") as file:
            for name, place in places.items():
                if place == shard:
                    parts = (file.get_tensor(f"{name}/{part}") for part in ("codes", "prosody", "speaker"))
                    turns[name] = EncodedTurn(name, *parts)
    return turns


def write_alignment(folder: Path, ends: Mapping[str, Tensor], text: str) -> None:
    """Writes beside the shards when the symbols of each turn's text end.

    Args:
        folder: Folder of the shards.
        ends: float32 [L], frames, by turn id.
        text: Name of the text codec whose symbols they are.
    """
    tensors = {name: times.float().contiguous() for name, times in ends.items()}
    with new_file(folder / ALIGNMENT_NAME) as file:
        save_file(tensors, file, metadata={"text": text})


def aligned_text(folder: Path) -> str | None:
    """Returns the name of the text codec whose symbols are aligned, or None where none are."""
    path = folder / ALIGNMENT_NAME
    if not path.is_file():
        return None
    with safe_open(path, framework="pt") as file:
        return (file.metadata() or {}).get("text", "bytes")


def read_alignment(folder: Path, text: str) -> dict[str, Tensor] | None:
    """Returns what `write_alignment` wrote for this text codec, or None without an alignment.

    Raises:
        ValueError: The symbols of another text codec were aligned.
    """
    found = aligned_text(folder)
    if found is None:
        return None
    if found != text:
        raise ValueError(
            f"{folder / ALIGNMENT_NAME} is of the text codec {found!r}, the model's is {text!r}: run "
            f"launch/encode_corpus.py with this recipe, which aligns again"
        )
    return load_file(folder / ALIGNMENT_NAME)


def write_code_vectors(folder: Path, vectors: Tensor) -> None:
    """Writes beside the shards what each code adds to the tokenizer's latent, [K, V, D], in 16 bits."""
    folder.mkdir(parents=True, exist_ok=True)
    with new_file(folder / VECTORS_NAME) as file:
        save_file({"vectors": vectors.half().contiguous()}, file)


def read_code_vectors(folder: Path) -> Tensor | None:
    """Returns what `write_code_vectors` wrote, float32, or None where there is none."""
    path = folder / VECTORS_NAME
    return load_file(path)["vectors"].float() if path.is_file() else None
