"""A corpus as codes on disk: safetensors shards, readable without the audio."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from csm.system.digests import damage, folder_digests, record_digests, require_intact
from csm.system.files import new_file, write_atomically

INDEX_NAME = "index.json"
# Times at which the letters or phones of each turn end.
ALIGNMENT_NAME = "alignment.safetensors"
# What each code adds to the tokenizer's latent.
VECTORS_NAME = "code_vectors.safetensors"
REMEDY = "delete the folder of the codes and run csm encode again"
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
        with new_file(folder / _shard(shards)) as file:
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
    index = json.dumps({**description, "turns": places}, indent=0) + "\n"
    record_digests(folder, map(_shard, range(shards)), planned={INDEX_NAME: index})
    write_atomically(folder / INDEX_NAME, index)
    return len(places)


def read_index(folder: Path) -> dict[str, object] | None:
    """Returns the description of finished shards, or None where there are none.

    Raises:
        ValueError: The index is damaged, or of a version that entered no SHA-256.
    """
    path = folder / INDEX_NAME
    if not path.is_file():
        return None
    require_intact(path, REMEDY, listed=True)
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if all(type(place) is int and place >= 0 for place in index["turns"].values()):
            return index
        problem: object = "a turn has no shard"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        problem = error
    raise ValueError(f"{path} is no index of codes ({problem}); {REMEDY}")


def read_code_shards(folder: Path) -> dict[str, EncodedTurn]:
    """Returns all turns by id.

    Raises:
        ValueError: No finished shards there, or one that the index names is missing or damaged.
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
        path = folder / _shard(shard)
        require_intact(path, REMEDY, listed=True)
        with _opened(path) as file:
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
    record_digests(folder, [ALIGNMENT_NAME])


def aligned_text(folder: Path) -> str | None:
    """Returns the name of the text codec whose symbols are aligned, or None where none are, or none whole."""
    path = folder / ALIGNMENT_NAME
    if damage(path, listed=True) is not None:
        return None
    with _opened(path) as file:
        return (file.metadata() or {}).get("text", "bytes")


def read_alignment(folder: Path, text: str) -> dict[str, Tensor] | None:
    """Returns what `write_alignment` wrote for this text codec, or None without an alignment.

    Raises:
        ValueError: The symbols of another text codec were aligned.
    """
    path = folder / ALIGNMENT_NAME
    require_intact(path, REMEDY, listed=path.is_file())  # one that was entered and is gone is no choice
    found = aligned_text(folder)
    if found is None:
        return None
    if found != text:
        raise ValueError(
            f"{folder / ALIGNMENT_NAME} is of the text codec {found!r}, the model's is {text!r}: run "
            f"launch/encode_corpus.py with this recipe, which aligns again"
        )
    with _opened(folder / ALIGNMENT_NAME) as file:
        return {key: file.get_tensor(key) for key in file.keys()}


def write_code_vectors(folder: Path, vectors: Tensor) -> None:
    """Writes beside the shards what each code adds to the tokenizer's latent, [K, V, D], in 16 bits."""
    folder.mkdir(parents=True, exist_ok=True)
    with new_file(folder / VECTORS_NAME) as file:
        save_file({"vectors": vectors.half().contiguous()}, file)
    record_digests(folder, [VECTORS_NAME])


def read_code_vectors(folder: Path) -> Tensor | None:
    """Returns what `write_code_vectors` wrote, float32, or None where there is none.

    Raises:
        ValueError: The file is damaged.
    """
    path = folder / VECTORS_NAME
    require_intact(path, REMEDY, listed=path.is_file())
    if not path.is_file():
        return None
    with _opened(path) as file:
        return file.get_tensor("vectors").float()


def codes_digests(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of shards, alignment and code vectors by name.

    Not of the index: it names the tokenizer's folder too, which may be moved.
    """
    return {f"codes/{name}": digest for name, digest in folder_digests(folder).items() if name != INDEX_NAME}


def _shard(number: int) -> str:
    return f"codes_{number:04d}.safetensors"


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Opens a safetensors file; what the library raises of it, the user sees in one line.

    Raises:
        ValueError: The file is none, or lacks a tensor.
    """
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{path} is damaged ({error}); {REMEDY}") from error
