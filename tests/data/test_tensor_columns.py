"""Tensors that were appended to part by part are written as safetensors writes them whole."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from csm.data.tensor_columns import TensorColumns, new_tensor_file

KINDS: dict = {"b": np.int32, "a": np.int32, "bytes": np.uint8, "bytes_starts": np.int64, "z": np.float32}


def fill(columns: TensorColumns, parts: int) -> None:
    columns.append("bytes_starts", [0])
    for part in range(parts):
        columns.append("a", [part, part + 1])
        columns.append("z", np.array([part / 3], np.float32))
        columns.append_parts("bytes", [np.arange(part, dtype=np.uint8), np.zeros(0, np.uint8)])


@pytest.mark.parametrize("parts", [0, 1, 50])
@pytest.mark.parametrize("metadata", [None, {"text": 'phones "é" 0af'}])
def test_the_bytes_are_those_of_safetensors(tmp_path: Path, parts: int, metadata) -> None:
    held = TensorColumns(KINDS)
    fill(held, parts)
    with new_tensor_file(tmp_path / "mine", KINDS, metadata) as columns:
        fill(columns, parts)
    arrays = held.arrays()
    save_file(
        {name: torch.from_numpy(array) for name, array in arrays.items()}, tmp_path / "theirs", metadata
    )
    assert (tmp_path / "mine").read_bytes() == (tmp_path / "theirs").read_bytes()
    assert {name: array.dtype for name, array in arrays.items()} == KINDS
    assert len(arrays["b"]) == 0 and arrays["bytes_starts"][-1] == sum(range(parts))
    assert len(arrays["bytes_starts"]) == 2 * parts + 1


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(KeyError), new_tensor_file(tmp_path / "mine", KINDS) as columns:
        fill(columns, 3)
        columns.append("other", [0])
    assert not list(tmp_path.iterdir())
