"""A CTranslate2 file is read whole, in every type, or refused with the reason."""

import struct

import pytest
import torch

from csm.tokenizer.semantic.ctranslate2_weights import read_weights


def string(text: str) -> bytes:
    return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"


def variable(name: str, tensor: torch.Tensor, kind: int) -> bytes:
    data = tensor.numpy().tobytes()
    shape = struct.pack(f"<B{tensor.ndim}I", tensor.ndim, *tensor.shape)
    return string(name) + shape + struct.pack("<BI", kind, len(data)) + data


def model(*variables: bytes, version: int = 6) -> bytes:
    head = struct.pack("<I", version)
    if version >= 2:
        head += string("WhisperSpec") + struct.pack("<I", 3)
    return head + struct.pack("<I", len(variables)) + b"".join(variables)


WEIGHT = torch.randn(2, 3)
CONTENT = (
    variable("encoder/a/weight", WEIGHT, 0),
    variable("encoder/b", torch.tensor([-3, 7], dtype=torch.int8), 1),
    variable("encoder/c", torch.tensor(5, dtype=torch.int32), 3),
    variable("decoder/a/weight", WEIGHT.half(), 4),
)


@pytest.mark.parametrize("version", [1, 2, 6])
def test_variables_of_a_prefix_are_read_in_their_types(tmp_path, version):
    path = tmp_path / "model.bin"
    path.write_bytes(model(*CONTENT, version=version))
    found = read_weights(path, prefix="encoder/")
    assert found.keys() == {"a/weight", "b", "c"}
    assert torch.equal(found["a/weight"], WEIGHT)
    assert found["b"].tolist() == [-3, 7] and int(found["c"]) == 5
    assert torch.equal(read_weights(path, prefix="decoder/")["a/weight"], WEIGHT.half())


def test_every_shorter_file_is_refused(tmp_path):
    whole = model(*CONTENT)
    path = tmp_path / "model.bin"
    for length in range(0, len(whole), 3):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="not a whole CTranslate2 model file"):
            read_weights(path)


def test_a_missing_part_is_named(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(model(*CONTENT))
    with pytest.raises(ValueError, match="no variable vocoder/"):
        read_weights(path, prefix="vocoder/")


def test_an_unknown_type_is_refused(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(model(variable("x", WEIGHT, 9)))
    with pytest.raises(ValueError, match="not a whole"):
        read_weights(path)
