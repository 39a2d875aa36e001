"""Random numbers as a function of (seed, step, micro-batch): equal for any number of ranks, also resumed."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

import numpy
import torch


def derived_seed(seed: int, *parts: int | str) -> int:
    """Mixes a run's seed with any parts (step, micro-batch, a name) into a 63-bit seed, by SHA-256."""
    digest = hashlib.sha256(json.dumps([seed, *parts]).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def seed_everything(seed: int, *parts: int | str) -> None:
    """Seeds python, numpy and torch (all devices) from `derived_seed(seed, *parts)`."""
    value = derived_seed(seed, *parts)
    random.seed(value)
    numpy.random.seed(value % 2**32)
    torch.manual_seed(value)


def random_state() -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Returns the generators' states as (JSON values, uint8 tensors); nothing needs pickling."""
    version, numbers, gauss = random.getstate()
    name, keys, position, has_gauss, cached = numpy.random.get_state()
    values = {
        "python": [version, list(numbers), gauss],
        "numpy": [str(name), [int(key) for key in keys], int(position), int(has_gauss), float(cached)],
    }
    tensors = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        tensors["cuda"] = torch.cuda.get_rng_state()
    return values, tensors


def set_random_state(values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Restores what `random_state` returned."""
    version, numbers, gauss = values["python"]
    random.setstate((version, tuple(numbers), gauss))
    name, keys, position, has_gauss, cached = values["numpy"]
    numpy.random.set_state((name, numpy.array(keys, dtype=numpy.uint32), position, has_gauss, cached))
    torch.set_rng_state(tensors["torch"])
    if "cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["cuda"])
