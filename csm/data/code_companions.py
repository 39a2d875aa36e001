"""Beside the shards of codes: when the letters or phones of each turn end, and the vectors of the codes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors.torch import save_file
from torch import Tensor

from csm.data.code_shards import REMEDY, opened
from csm.data.id_index import IdIndex
from csm.data.tensor_columns import new_tensor_file
from csm.system.digests import damage, record_digests, require_intact
from csm.system.files import new_file

# Times at which the letters or phones of each turn end.
ALIGNMENT_NAME = "alignment.safetensors"
# What each code adds to the tokenizer's latent.
VECTORS_NAME = "code_vectors.safetensors"


class Alignment(Mapping[str, Tensor]):
    """When the symbols of each turn's text end, by turn id: float32 [L], views of the mapped file.

    Args:
        ids: uint8, the ids of the turns with a line end between two.
        starts: int64 [N + 1], where the ends of each turn begin.
        ends: float32, those of all turns.
    """

    def __init__(self, ids: Tensor, starts: Tensor, ends: Tensor) -> None:
        self._ids = IdIndex([ids.numpy()] if len(ids) else [])
        self._starts, self._ends = starts.numpy(), ends

    def __getitem__(self, turn: str) -> Tensor:
        if (place := self._ids.place(turn)) is None:
            raise KeyError(turn)
        first, last = self._starts[place : place + 2].tolist()
        return self._ends[first:last]

    def __contains__(self, turn: object) -> bool:
        return isinstance(turn, str) and self._ids.place(turn) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids)

    def __len__(self) -> int:
        return len(self._ids)


def write_alignment(folder: Path, ends: Iterable[tuple[str, Tensor]], text: str, material: str = "") -> None:
    """Writes beside the shards when the symbols of each turn's text end; no more than one turn is held.

    Args:
        folder: Folder of the shards.
        ends: Turn id and float32 [L], frames, of each turn.
        text: Name of the text codec whose symbols they are.
        material: Hash of the turns and texts that were aligned.
    """
    kinds: dict[str, type[np.generic]] = {"ids": np.uint8, "starts": np.int64, "ends": np.float32}
    count = 0
    # One key: safetensors writes several in an order that differs from process to process.
    with new_tensor_file(folder / ALIGNMENT_NAME, kinds, {"text": f"{text} {material}".strip()}) as columns:
        columns.append("starts", [0])
        for number, (turn, times) in enumerate(ends):
            name = f"\n{turn}" if number else turn
            columns.append("ids", np.frombuffer(name.encode(), np.uint8))
            columns.append("ends", times.float().numpy())
            count += len(times)
            columns.append("starts", [count])
    record_digests(folder, [ALIGNMENT_NAME])


def aligned_text(folder: Path) -> tuple[str, str] | None:
    """Returns the text codec whose symbols are aligned and the hash of the material.

    None where there is no alignment, or a damaged one.
    """
    path = folder / ALIGNMENT_NAME
    if damage(path, listed=True) is not None:
        return None
    with opened(path) as file:
        text, _, material = (file.metadata() or {}).get("text", "bytes").partition(" ")
    return text, material


def read_alignment(folder: Path, text: str) -> Alignment | None:
    """Returns what `write_alignment` wrote for this text codec, or None without an alignment.

    Raises:
        ValueError: The symbols of another text codec were aligned.
    """
    path = folder / ALIGNMENT_NAME
    require_intact(path, REMEDY, listed=path.is_file())  # one that was entered and is gone is no choice
    found = aligned_text(folder)
    if found is None:
        return None
    if found[0] != text:
        raise ValueError(
            f"{path} is of the text codec {found[0]!r}, the model's is aligned as {text!r}: run "
            f"launch/encode_corpus.py with this recipe, which aligns again"
        )
    with opened(path) as file:
        ids, starts, ends = (file.get_tensor(name) for name in ("ids", "starts", "ends"))
    alignment, bounds = Alignment(ids, starts, ends), starts.numpy()
    if (
        len(bounds) != len(alignment) + 1
        or bool((bounds[1:] < bounds[:-1]).any())
        or (bounds[0], bounds[-1]) != (0, len(ends))
    ):
        raise ValueError(f"{path} is damaged (its tensors do not fit each other); {REMEDY}")
    return alignment


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
    with opened(path) as file:
        return file.get_tensor("vectors").float()
