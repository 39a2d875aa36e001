"""One rank's files of a checkpoint: its state is copied in the host's memory and written beside steps."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from csm.system.files import file_sha256, new_file

Entries = dict[str, list[int | str]]  # file name: [size, SHA-256]


class HostCopy:
    """A copy of tensors in the host's memory, whose memory is kept for the next copy.

    Fresh memory costs a page fault for every 4 KB, which takes longer than the copy; a GPU copies into pinned
    memory at the speed of its bus.
    """

    def __init__(self) -> None:
        self._kept: dict[str, Tensor] = {}

    def of(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the copy, which the next call overwrites."""
        copies: dict[str, Tensor] = {}
        for name, tensor in tensors.items():
            kept = self._kept.get(name)
            if kept is None or kept.shape != tensor.shape or kept.dtype != tensor.dtype:
                kept = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.is_cuda)
            copies[name] = kept.copy_(tensor.detach(), non_blocking=True)
        if any(tensor.is_cuda for tensor in tensors.values()):
            torch.cuda.synchronize()
        self._kept = copies
        return copies


class ShardWriter:
    """Copies, writes, flushes and reads back one rank's two files in a thread of its own.

    The thread ends with the process, however that ends: what it left half-written has a temporary name.

    Args:
        folder: Temporary folder of the checkpoint, which exists.
        rank: The rank.
        values: Its JSON.
        tensors: Not changed until `wait_for_copy` returns.
        copy: Where they are copied; not used elsewhere until `wait` returns.
    """

    def __init__(
        self, folder: Path, rank: int, values: bytes, tensors: Mapping[str, Tensor], copy: HostCopy
    ) -> None:
        self.folder, self.rank, self.values, self.tensors, self.copy = folder, rank, values, tensors, copy
        self._copied = threading.Event()
        self._entries: Entries = {}
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        """Whether both files are written, or one could not be."""
        return not self._thread.is_alive()

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def wait_for_copy(self) -> None:
        """Waits until the tensors may be changed."""
        self._copied.wait()

    def wait(self) -> Entries:
        """Returns size and SHA-256 of both files, once they are on the disk and read back equal.

        Raises:
            OSError: A file could not be written, or holds other bytes than were written.
        """
        self._thread.join()
        if isinstance(self._error, SafetensorError):  # how safetensors reports a full disk
            raise OSError(str(self._error)) from self._error
        if self._error is not None:
            raise self._error
        return self._entries

    def _run(self) -> None:
        try:
            copies = self.copy.of(self.tensors)
            self._copied.set()
            self._entries = write_shard(self.folder, self.rank, self.values, copies)
        except BaseException as error:
            self._error = error
        finally:
            self._copied.set()


def write_shard(folder: Path, rank: int, values: bytes, tensors: Mapping[str, Tensor]) -> Entries:
    """Writes a rank's two files and reads them back; returns their sizes and SHA-256.

    Raises:
        OSError: A file could not be written, or holds other bytes than were written.
        SafetensorError: So does safetensors say it.
    """
    path, text = folder / f"rank_{rank:05d}.safetensors", folder / f"rank_{rank:05d}.json"
    with new_file(path) as temporary:
        # Written from where the tensors lie, without Python's lock: steps are not held up.
        save_file(dict(tensors), temporary)
    write_flushed(text, values)
    digests = [file_sha256(path), file_sha256(text)]
    if not holds(path, tensors) or digests[1] != hashlib.sha256(values).hexdigest():
        raise OSError(f"the disk of {folder} returned other bytes than were written")
    return {one.name: [one.stat().st_size, digest] for one, digest in zip((path, text), digests, strict=True)}


def holds(path: Path, tensors: Mapping[str, Tensor]) -> bool:
    """Returns whether a file holds these tensors, bit for bit."""
    with safe_open(str(path), framework="pt") as file:
        return set(file.keys()) == set(tensors) and all(
            same_bits(file.get_tensor(name), tensor) for name, tensor in tensors.items()
        )


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Returns whether two tensors have the same dtype, shape and bits; NaN equals itself."""
    return (
        first.dtype == second.dtype
        and first.shape == second.shape
        and torch.equal(first.reshape(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8))
    )


def write_flushed(path: Path, data: bytes) -> None:
    """Writes a file and waits until it is on the disk."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
