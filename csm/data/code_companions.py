"""Beside the shards of codes: when the letters or phones of each turn end, and the vectors of the codes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from csm.data.code_shards import REMEDY, bytes_tensor, opened
from csm.system.digests import damage, record_digests, require_intact
from csm.system.files import new_file

# Times at which the letters or phones of each turn end.
ALIGNMENT_NAME = "alignment.safetensors"
# What each code adds to the tokenizer's latent.
VECTORS_NAME = "code_vectors.safetensors"


def write_alignment(folder: Path, ends: Mapping[str, Tensor], text: str, material: str = "") -> None:
    """Writes beside the shards when the symbols of each turn's text end.

    Args:
        folder: Folder of the shards.
        ends: float32 [L], frames, by turn id.
        text: Name of the text codec whose symbols they are.
        material: Hash of the turns and texts that were aligned.
    """
    lengths = torch.tensor([len(times) for times in ends.values()], dtype=torch.int64)
    tensors = {
        "ids": bytes_tensor("\n".join(ends).encode()),
        "starts": torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        "ends": torch.cat([torch.zeros(0), *(times.float() for times in ends.values())]),
    }
    # One key: safetensors writes several in an order that differs from process to process.
    with new_file(folder / ALIGNMENT_NAME) as file:
        save_file(tensors, file, metadata={"text": f"{text} {material}".strip()})
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
    if found[0] != text:
        raise ValueError(
            f"{path} is of the text codec {found[0]!r}, the model's is aligned as {text!r}: run "
            f"launch/encode_corpus.py with this recipe, which aligns again"
        )
    with opened(path) as file:
        ids, starts, ends = (file.get_tensor(name) for name in ("ids", "starts", "ends"))
    names = bytes(ids.numpy()).decode().split("\n") if len(ids) else []
    bounds = starts.tolist()
    if len(bounds) != len(names) + 1 or bounds != sorted(bounds) or (bounds[0], bounds[-1]) != (0, len(ends)):
        raise ValueError(f"{path} is damaged (its tensors do not fit each other); {REMEDY}")
    return {name: ends[bounds[row] : bounds[row + 1]] for row, name in enumerate(names)}


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
