"""Tensors that grow: one-dimensional, appended to part by part, and written as a safetensors file.

`safetensors` itself writes tensors that are in memory; the bytes of a file are the same.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from csm.system.files import new_file

# Element types, in the order in which safetensors writes tensors; those of one type by name.
KINDS: Mapping[type[np.generic], str] = {np.int64: "I64", np.float32: "F32", np.int32: "I32", np.uint8: "U8"}


class TensorColumns:
    """One-dimensional tensors that are appended to.

    Args:
        kinds: Element type of each by name, one of KINDS.
        files: Where each lies, by name; None: in memory.
    """

    def __init__(
        self, kinds: Mapping[str, type[np.generic]], files: Mapping[str, IO[bytes]] | None = None
    ) -> None:
        order = list(KINDS)
        self._kinds = dict(sorted(kinds.items(), key=lambda item: (order.index(item[1]), item[0])))
        self._files = files or {name: BytesIO() for name in kinds}
        self._lengths = dict.fromkeys(self._kinds, 0)

    def append(self, name: str, values: ArrayLike) -> None:
        """Appends elements to a tensor."""
        array = np.asarray(values, self._kinds[name])
        self._files[name].write(array.tobytes())
        self._lengths[name] += len(array)

    def append_parts(self, name: str, parts: Sequence[NDArray[Any]]) -> None:
        """Appends parts to a tensor, and the place where each ends to the tensor NAME_starts."""
        begin = self._lengths[name]
        self.append(name, np.concatenate([np.zeros(0, self._kinds[name]), *parts]))
        self.append(f"{name}_starts", begin + np.cumsum([len(part) for part in parts], dtype=np.int64))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Returns the tensors, which lie in memory."""
        found = {}
        for name, file in self._files.items():
            assert isinstance(file, BytesIO), "tensors in files are read from their safetensors file"
            found[name] = np.frombuffer(file.getbuffer(), self._kinds[name])
        return found

    def write(self, path: Path, metadata: Mapping[str, str] | None = None) -> None:
        """Writes a safetensors file; of several metadata the order is theirs."""
        header: dict[str, object] = {} if metadata is None else {"__metadata__": metadata}
        offset = 0
        for name, kind in self._kinds.items():
            end = offset + self._lengths[name] * np.dtype(kind).itemsize
            header[name] = {
                "dtype": KINDS[kind],
                "shape": [self._lengths[name]],
                "data_offsets": [offset, end],
            }
            offset = end
        text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        with path.open("wb") as target:
            target.write(len(text).to_bytes(8, "little") + text)
            for name in self._kinds:
                self._files[name].seek(0)
                shutil.copyfileobj(self._files[name], target)


@contextmanager
def new_tensor_file(
    path: Path, kinds: Mapping[str, type[np.generic]], metadata: Mapping[str, str] | None = None
) -> Iterator[TensorColumns]:
    """Yields tensors to append to, which become a safetensors file where the block ends without an error.

    Until then they lie in files without names in the folder of `path`: none is in memory, and a killed
    process leaves none.
    """
    with new_file(path) as temporary, ExitStack() as opened:
        files = {name: opened.enter_context(tempfile.TemporaryFile(dir=path.parent)) for name in kinds}
        columns = TensorColumns(kinds, files)
        yield columns
        columns.write(temporary, metadata)
