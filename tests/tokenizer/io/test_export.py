"""The exported programs against the tokenizer they were made of, at lengths the trace has not seen."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from csm.tokenizer.io.export import export_tokenizer
from csm.tokenizer.spectrum import COMPRESSION
from tests.small_vocoder_tokenizer import small_vocoder_tokenizer

# Batch, samples: one sample, one frame, part of a window, whole windows, and many.
SIZES = [(1, 1), (1, 640), (2, 641), (3, 4480), (1, 16 * 640), (2, 45 * 640 + 7)]
ALONE = """
import sys, torch
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("csm", "csm_kernels"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
encoder = torch.export.load(f"{sys.argv[1]}/encoder.pt2").module()
decoder = torch.export.load(f"{sys.argv[1]}/decoder.pt2").module()
audio = torch.load(f"{sys.argv[1]}/audio.pt")
codes = encoder(audio)
torch.save((codes, decoder(codes)), f"{sys.argv[1]}/made.pt")
"""


ONNX = (
    importlib.util.find_spec("onnxscript") is not None and importlib.util.find_spec("onnxruntime") is not None
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, windowed) -> Path:
    """The programs of `windowed` in both formats: tracing takes seconds, so it happens once."""
    folder = tmp_path_factory.mktemp("programs")
    written = export_tokenizer(windowed, folder, onnx=ONNX)
    suffixes = ("pt2", "onnx") if ONNX else ("pt2",)
    names = ["config.json", *(f"{name}.{suffix}" for name in ("encoder", "decoder") for suffix in suffixes)]
    assert [path.name for path in written] == names
    return folder


@torch.no_grad()
def test_exported_programs_give_the_same_codes_and_sound_at_any_length(windowed, speech, folder):
    encoder, decoder = (torch.export.load(folder / f"{n}.pt2").module() for n in ("encoder", "decoder"))
    for batch, samples in SIZES:
        audio = speech(batch, samples + 400)[..., :samples]
        codes, _ = windowed.encode(audio)
        assert torch.equal(encoder(audio), codes)
        torch.testing.assert_close(decoder(codes), windowed.decode(codes), atol=1e-5, rtol=0)


@torch.no_grad()
def test_they_run_where_this_package_is_not_installed(windowed, speech, folder):
    audio = speech(1, 9_999)
    torch.save(audio, folder / "audio.pt")
    program = [sys.executable, "-c", ALONE, str(folder)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    codes, waveform = torch.load(folder / "made.pt")
    assert torch.equal(codes, windowed.encode(audio)[0])
    torch.testing.assert_close(waveform, windowed.decode(codes), atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.skipif(not ONNX, reason="needs onnxscript and onnxruntime")
def test_onnx_gives_the_same_codes_and_sound_at_any_length(windowed, speech, folder):
    runtime = pytest.importorskip("onnxruntime")
    encoder, decoder = (runtime.InferenceSession(folder / f"{n}.onnx") for n in ("encoder", "decoder"))
    for batch, samples in SIZES:
        audio = speech(batch, samples + 400)[..., :samples]
        codes, _ = windowed.encode(audio)
        (theirs,) = encoder.run(None, {"audio": audio.numpy()})
        assert torch.equal(torch.from_numpy(theirs), codes)
        (waveform,) = decoder.run(None, {"codes": codes.numpy()})
        torch.testing.assert_close(torch.from_numpy(waveform), windowed.decode(codes), atol=1e-5, rtol=0)


@pytest.mark.skipif(importlib.util.find_spec("onnxscript") is not None, reason="onnxscript is installed")
def test_onnx_without_its_packages_is_refused_with_the_fix(windowed, tmp_path):
    with pytest.raises(ValueError, match=r"pip install 'csm-speech\[export\]'"):
        export_tokenizer(windowed, tmp_path, onnx=True)


def test_a_number_of_codebooks_that_it_lacks_is_refused(windowed, tmp_path):
    with pytest.raises(ValueError, match="num_codebooks is 9: expected 1 to 8"):
        export_tokenizer(windowed, tmp_path, num_codebooks=9)


def test_a_tokenizer_with_a_vocoder_is_refused_and_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match="tokenizer.vocoder: .* export a tokenizer without a vocoder"):
        export_tokenizer(small_vocoder_tokenizer(), tmp_path / "programs")
    assert not (tmp_path / "programs").exists()


@torch.no_grad()
def test_a_tokenizer_of_recovered_phases_is_exported_up_to_its_magnitudes(recovering, speech, tmp_path):
    export_tokenizer(recovering, tmp_path, num_codebooks=5)
    encoder, decoder = (torch.export.load(tmp_path / f"{n}.pt2").module() for n in ("encoder", "decoder"))
    audio = speech(2, 9_999)
    codes, _ = recovering.encode(audio, num_codebooks=5)
    assert torch.equal(encoder(audio), codes)
    own = recovering.decoder
    compressed = own.compressed(own.frames(recovering.quantizer.decode(codes)))
    expected = own.magnitude_head.linear_magnitudes(compressed)
    torch.testing.assert_close(decoder(codes) ** COMPRESSION, expected**COMPRESSION, atol=1e-5, rtol=0)
