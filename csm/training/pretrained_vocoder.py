"""Weights of the vocoder FARGAN out of a package of libopus, which speaks through it where packets are lost.

The package holds libopus as WebAssembly, deflated and as text (yEnc) in a JavaScript file. Its weights lie in
the data segments behind a table of (name, kind, bytes, address) entries.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from csm.data.packages import Package, fetch
from csm.tokenizer.vocoder import INTEGERS
from csm_kernels import Int8Rows

PACKAGE = Package(
    name="@wasm-audio-decoders/opus-ml",
    version="0.0.3",
    file="wasm-audio-decoders-opus-ml-0.0.3.tgz",
    sha256="62c900f540e1c2e5f1fa353a44ec9f8e2f92a349b74f36ded50a3be02066fd84",
    registry="npm",
)
_MEMBER = "package/src/EmscriptenWasm.js"
_DATA_SECTION = 11
# Kinds of the table's entries.
_KINDS = {0: np.float32, 3: np.int8}
_NAMES = re.compile(rb"(cond|sig)_net_[a-z0-9_]+_(bias|scale|weights_float|weights_int8)")
# Activations that int8 weights meet are 127 times as large.
_ACTIVATION_SCALE = 127
# Layers whose matrix is there, by our name: libopus' name and [out, in].
LAYERS = {
    "features": ("cond_net_fdense1", 64, 32),
    "frames": ("cond_net_fconv1", 128, 192),
    "conditions": ("cond_net_fdense2", 320, 128),
    "gain": ("sig_net_cond_gain_dense", 1, 80),
    "convolution": ("sig_net_fwc0_conv", 192, 328),
    "convolution_gate": ("sig_net_fwc0_glu_gate", 192, 192),
    "pitch_gains": ("sig_net_gain_dense_out", 4, 192),
    "gru1_input": ("sig_net_gru1_input", 480, 272),
    "gru1_recurrent": ("sig_net_gru1_recurrent", 480, 160),
    "gru1_gate": ("sig_net_gru1_glu_gate", 160, 160),
    "gru2_input": ("sig_net_gru2_input", 384, 240),
    "gru2_recurrent": ("sig_net_gru2_recurrent", 384, 128),
    "gru2_gate": ("sig_net_gru2_glu_gate", 128, 128),
    "gru3_input": ("sig_net_gru3_input", 384, 208),
    "gru3_recurrent": ("sig_net_gru3_recurrent", 384, 128),
    "gru3_gate": ("sig_net_gru3_glu_gate", 128, 128),
    "skip": ("sig_net_skip_dense", 128, 688),
    "skip_gate": ("sig_net_skip_glu_gate", 128, 128),
    "output": ("sig_net_sig_dense_out", 40, 128),
}
# Those with a bias; of the others it is zero.
BIASES = "gain", "pitch_gains"
PERIODS = "cond_net_pembed_weights_float", 224, 12


def fargan_weights(cache: Path) -> dict[str, Tensor]:
    """Returns the weights of `csm.tokenizer.vocoder.Vocoder` by name, fetched once.

    Args:
        cache: Folder of packages.

    Raises:
        ValueError: The package cannot be had, or does not hold what it is pinned for.
    """
    with tarfile.open(fetch(PACKAGE, cache)) as archive:
        member = archive.extractfile(_MEMBER)
        assert member is not None  # the file is pinned by its hash
        text = member.read().decode()
    arrays = weight_arrays(memory_of(web_assembly(text)))
    name, count, width = PERIODS
    weights = {"periods": torch.from_numpy(arrays[name].reshape(count, width))}
    for ours, (theirs, rows, columns) in LAYERS.items():
        if f"{theirs}_weights_int8" in arrays:
            values = _integers(arrays[f"{theirs}_weights_int8"], rows, columns)
            matrix = Int8Rows(values, torch.from_numpy(_ACTIVATION_SCALE * arrays[f"{theirs}_scale"]))
            if ours in INTEGERS:
                weights[ours], weights[f"{ours}_scale"] = matrix
            else:
                weights[ours] = matrix.restored()
        else:
            floats = arrays[f"{theirs}_weights_float"].reshape(columns, rows)
            weights[ours] = torch.from_numpy(floats.T.copy())
        if ours in BIASES:
            weights[f"{ours}_bias"] = torch.from_numpy(arrays[f"{theirs}_bias"])
    return weights


def web_assembly(script: str) -> bytes:
    """Returns the WebAssembly that a script of the package holds as yEnc text.

    Raises:
        ValueError: There is none.
    """
    found = re.search(r"String\.raw`dynEncode01([0-9a-f]{2})[0-9a-f]{8}([^`]*)`", script)
    if found is None:
        raise ValueError(f"{PACKAGE.file}: expected encoded WebAssembly in {_MEMBER}, found none")
    offset, text = int(found[1], 16), found[2]
    # Bytes 128 to 159 may stand as the characters that Windows has in their place.
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    places = {ord(bytes([code]).decode("cp1252", "ignore") or "\0"): code for code in range(128, 160)}
    for character, code in places.items():
        if character > 255:
            codes = np.where(codes == character, code, codes)
    # "=" marks a character that is shifted by 64; it may itself be marked.
    escaped = np.zeros(len(codes), bool)
    for place in np.flatnonzero(codes == ord("=")):
        if not escaped[place] and place + 1 < len(codes):
            escaped[place + 1] = True
    marks = (codes == ord("=")) & ~escaped
    shifted = codes.astype(np.int64) - 64 * escaped - offset
    return zlib.decompress((shifted[~marks] % 256).astype(np.uint8).tobytes(), -15)


def memory_of(module: bytes) -> bytes:
    """Returns the memory that a WebAssembly module starts with."""
    memory = bytearray()
    for address, data in _segments(module):
        memory.extend(bytes(max(0, address + len(data) - len(memory))))
        memory[address : address + len(data)] = data
    return bytes(memory)


def weight_arrays(memory: bytes) -> dict[str, np.ndarray]:
    """Returns libopus' weights by name, int8 or float32 as they lie there."""
    words = np.frombuffer(memory[: len(memory) // 4 * 4], np.uint32)
    arrays = {}
    for found in _NAMES.finditer(memory):
        if memory[found.end()] or memory[found.start() - 1]:
            continue  # a part of another name
        for place in np.flatnonzero(words == found.start()):
            kind, size, address = (int(word) for word in words[place + 1 : place + 4])
            if kind not in _KINDS or not 0 < address <= len(memory) - size or size % 4 or not size:
                continue  # a number that only looks like the name's address
            arrays[found[0].decode()] = np.frombuffer(memory[address : address + size], _KINDS[kind]).copy()
    return arrays


def _segments(module: bytes) -> Iterator[tuple[int, bytes]]:
    """Yields (address, bytes) of the data section's segments."""
    place = 8
    while place < len(module):
        section = module[place]
        size, place = _unsigned(module, place + 1)
        if section == _DATA_SECTION:
            count, inside = _unsigned(module, place)
            for _ in range(count):
                # A mode of 0, the opcode of a constant, the address, the end of the expression.
                address, inside = _unsigned(module, inside + 2)
                length, inside = _unsigned(module, inside + 1)
                yield address, module[inside : inside + length]
                inside += length
        place += size


def _unsigned(data: bytes, place: int) -> tuple[int, int]:
    """Reads a LEB128 number; returns it and the place after it."""
    value = shift = 0
    while True:
        byte = data[place]
        value |= (byte & 127) << shift
        place, shift = place + 1, shift + 7
        if byte < 128:
            return value, place


def _integers(blocks: np.ndarray, rows: int, columns: int) -> Tensor:
    """Returns an int8 matrix [rows, columns], which lies in blocks of 8 rows and 4 columns."""
    whole = blocks.reshape(rows // 8, columns // 4, 8, 4).transpose(0, 2, 1, 3)
    return torch.from_numpy(whole.reshape(rows, columns).copy())
