"""Reading and writing audio files, and the ways in which a file can be bad."""

import logging
import os
import struct
import sys
import tracemalloc

import numpy as np
import pytest
import soundfile
import torch

from csm.audio import files
from csm.audio.files import check_audio, copy_audio, iter_blocks, read_audio, write_audio
from tests.full_disk import largest_file


def tone(seconds: float = 1.0, rate: int = 16_000, hertz: float = 220.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_a_written_file_is_read_back_to_16_bits(tmp_path, suffix: str, channels: int) -> None:
    waveform = torch.rand(channels, 3000, generator=torch.Generator().manual_seed(0)) * 2 - 1
    write_audio(tmp_path / f"new/a{suffix}", waveform, 11_025)
    for channel in range(channels):
        back = read_audio(tmp_path / f"new/a{suffix}", sample_rate=11_025, channel=channel)
        assert back.shape == (1, 3000) and back.dtype == torch.float32
        assert (back[0] - waveform[channel]).abs().max() <= 1 / 32768
    assert [p.name for p in (tmp_path / "new").iterdir()] == [f"a{suffix}"]


def test_a_second_copy_is_exact(tmp_path) -> None:
    write_audio(tmp_path / "a.wav", torch.from_numpy(tone())[None], 16_000)
    first = read_audio(tmp_path / "a.wav", sample_rate=16_000)
    write_audio(tmp_path / "b.flac", first, 16_000)
    assert torch.equal(first, read_audio(tmp_path / "b.flac", sample_rate=16_000))


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("wanted", [8_000, 11_025, 24_000])
def test_every_rate_is_resampled_to_the_requested_one(tmp_path, rate: int, wanted: int) -> None:
    soundfile.write(tmp_path / "a.wav", tone(0.5, rate), rate)
    waveform = read_audio(tmp_path / "a.wav", sample_rate=wanted)
    assert abs(waveform.shape[1] - 0.5 * wanted) <= 1
    spectrum = torch.fft.rfft(waveform[0]).abs()
    assert abs(float(spectrum.argmax()) * wanted / waveform.shape[1] - 220) < 4


def test_a_part_equals_the_slice_of_the_whole(tmp_path) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([tone(2), -tone(2)], 1), 16_000)
    whole = read_audio(tmp_path / "a.wav", sample_rate=16_000, channel=1)
    part = read_audio(tmp_path / "a.wav", sample_rate=16_000, channel=1, start=0.5, end=1.25)
    assert torch.equal(part, whole[:, 8_000:20_000])


def test_a_channel_must_be_chosen_where_there_are_two(tmp_path) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([tone(), -tone()], 1), 16_000)
    with pytest.raises(ValueError, match="channel=0..1"):
        read_audio(tmp_path / "a.wav", sample_rate=16_000)
    with pytest.raises(ValueError, match="channel is 2: expected 0..1"):
        read_audio(tmp_path / "a.wav", sample_rate=16_000, channel=2)


@pytest.mark.parametrize("stretch", [(-1.0, 1.0), (0.5, 0.5), (0.9, 0.2), (5.0, None), (0.5, 3.0)])
def test_times_outside_the_file_are_refused(tmp_path, stretch: tuple) -> None:
    soundfile.write(tmp_path / "a.wav", tone(), 16_000)
    with pytest.raises(ValueError, match=r"a\.wav"):
        read_audio(tmp_path / "a.wav", sample_rate=16_000, start=stretch[0], end=stretch[1])


def make_bad(kind: str, path) -> None:
    if kind == "zero bytes":
        path.write_bytes(b"")
    elif kind == "no samples":
        soundfile.write(path, np.zeros(0, np.float32), 16_000)
    elif kind == "text":
        path.write_bytes(b"this is not audio at all" * 100)
    elif kind == "truncated wav":
        soundfile.write(path, tone(), 16_000)
        path.write_bytes(path.read_bytes()[:-5000])
    elif kind == "truncated flac":
        soundfile.write(path, tone(3), 16_000, format="FLAC")
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    elif kind == "claims 2^31 samples":
        soundfile.write(path, tone(), 16_000, subtype="PCM_16")
        data = bytearray(path.read_bytes())
        at = data.index(b"data") + 4
        data[at : at + 4] = struct.pack("<I", 2**32 - 2)
        path.write_bytes(data)
    elif kind == "flac claims 2^31 samples":
        soundfile.write(path, tone(), 16_000, format="FLAC")
        data = bytearray(path.read_bytes())
        data[21] = (data[21] & 0xF0) | 0  # STREAMINFO: the count is the last 36 bits before the MD5
        data[22:26] = struct.pack(">I", 2**31)
        path.write_bytes(data)
    elif kind in ("nan", "infinite"):
        samples = tone()
        samples[1234] = np.nan if kind == "nan" else np.inf
        soundfile.write(path, samples, 16_000, subtype="FLOAT")
    elif kind == "silent":
        soundfile.write(path, np.zeros(16_000, np.float32), 16_000)
    elif kind == "constant":
        soundfile.write(path, np.full(16_000, 0.5, np.float32), 16_000)
    elif kind == "clipped":
        soundfile.write(path, np.clip(tone() * 50, -1, 1), 16_000)


BAD = {
    "zero bytes": "0 bytes",
    "no samples": "no audio",
    "text": "no audio that libsndfile reads",
    "truncated wav": "truncated",
    "truncated flac": "truncated|cannot be read",
    "claims 2^31 samples": "truncated",
    "flac claims 2^31 samples": "truncated|cannot be read",
    "nan": "NaN",
    "infinite": "NaN or infinite",
    "silent": "silent",
    "constant": "DC only",
    "clipped": "clipped",
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_file_is_refused_with_its_reason(tmp_path, kind: str) -> None:
    make_bad(kind, tmp_path / "bad.wav")
    with pytest.raises(ValueError, match=rf"bad\.wav.*({BAD[kind]})"):
        check_audio(tmp_path / "bad.wav")


@pytest.mark.parametrize("kind", [k for k in BAD if k not in ("silent", "constant", "clipped")])
def test_reading_refuses_broken_and_infinite_audio(tmp_path, kind: str) -> None:
    make_bad(kind, tmp_path / "bad.wav")
    with pytest.raises(ValueError, match=r"bad\.wav"):
        read_audio(tmp_path / "bad.wav", sample_rate=16_000)


def test_a_header_that_states_too_many_samples_takes_no_memory(tmp_path) -> None:
    make_bad("flac claims 2^31 samples", tmp_path / "bad.wav")
    tracemalloc.start()
    with pytest.raises(ValueError):
        read_audio(tmp_path / "bad.wav", sample_rate=16_000)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_an_mp3_named_wav_is_read(tmp_path) -> None:
    soundfile.write(tmp_path / "a.mp3", tone(), 16_000, format="MP3")
    (tmp_path / "a.mp3").rename(tmp_path / "a.wav")
    assert check_audio(tmp_path / "a.wav").duration >= 1.0
    assert read_audio(tmp_path / "a.wav", sample_rate=16_000).shape[1] >= 16_000


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux allows names that are not UTF-8")
def test_a_name_that_is_not_utf8_is_read_and_reported(tmp_path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.wav")
    soundfile.write(tmp_path / "a.wav", tone(), 16_000)
    (tmp_path / "a.wav").rename(path)
    assert read_audio(path, sample_rate=16_000).shape == (1, 16_000)
    path.write_bytes(b"")
    with pytest.raises(ValueError) as error:
        check_audio(path)
    assert str(error.value).encode("utf-8").startswith(b"caf\\xe9.wav")


def test_memory_does_not_grow_with_the_length(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(files, "BLOCK_SAMPLES", 1 << 14)
    peaks = []
    for seconds in (20, 200):
        soundfile.write(tmp_path / "long.wav", tone(seconds), 16_000)
        tracemalloc.start()
        copy_audio(tmp_path / "long.wav", tmp_path / "copy.flac", check_audio(tmp_path / "long.wav"))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0] + 100_000


def test_copies_have_no_dc_offset(tmp_path) -> None:
    soundfile.write(tmp_path / "a.wav", tone() + 0.2, 16_000)
    copy_audio(tmp_path / "a.wav", tmp_path / "b.flac", check_audio(tmp_path / "a.wav"))
    assert abs(float(read_audio(tmp_path / "b.flac", sample_rate=16_000).mean())) < 1e-3


def test_blocks_joined_are_the_file(tmp_path) -> None:
    soundfile.write(tmp_path / "a.wav", np.stack([tone(), -tone()], 1), 16_000, subtype="FLOAT")
    blocks = list(iter_blocks(tmp_path / "a.wav", 700))
    assert {len(block) for block in blocks[:-1]} == {700}
    assert np.array_equal(np.concatenate(blocks)[:, 0], tone())


@pytest.mark.parametrize("shape", [(3,), (1, 0), (0, 3), (1, 2, 3)])
def test_a_waveform_of_another_shape_writes_nothing(tmp_path, shape: tuple) -> None:
    with pytest.raises(ValueError, match="channels, samples"):
        write_audio(tmp_path / "a.wav", torch.zeros(shape), 16_000)
    with pytest.raises(ValueError, match="nothing was written"):
        write_audio(tmp_path / "a.wav", torch.full((1, 5), torch.nan), 16_000)
    assert not list(tmp_path.iterdir())


def test_samples_beyond_full_scale_are_clipped_not_wrapped(tmp_path) -> None:
    write_audio(tmp_path / "a.wav", torch.tensor([[2.0, -2.0, 1.0, -1.0]]), 16_000)
    values, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    assert values.tolist() == [32767, -32768, 32767, -32768]


def test_an_interrupted_write_leaves_the_old_file(tmp_path) -> None:
    write_audio(tmp_path / "a.wav", torch.from_numpy(tone())[None], 16_000)
    before = (tmp_path / "a.wav").read_bytes()
    with pytest.raises(KeyboardInterrupt), files.AtomicAudioWriter(tmp_path / "a.wav", 16_000, 1) as writer:
        writer.write(np.zeros((100, 1), np.float32))
        raise KeyboardInterrupt
    assert (tmp_path / "a.wav").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize("name", ["a.wav", "a.flac"])
@pytest.mark.parametrize("room", [20, 700, 1_500, 31_000])
def test_a_full_disk_is_an_error_with_path_and_bytes_and_leaves_the_old_file(
    tmp_path, capfd, name: str, room: int
) -> None:
    path = tmp_path / name
    write_audio(path, torch.from_numpy(tone())[None], 16_000)
    before = path.read_bytes()
    noise = torch.rand(1, 16_000, generator=torch.Generator().manual_seed(0)) - 0.5
    with largest_file(room), pytest.raises(OSError, match=r"\d+ bytes are free there.*" + name):
        write_audio(path, noise, 16_000)
    assert [p.name for p in tmp_path.iterdir()] == [name] and path.read_bytes() == before
    assert capfd.readouterr().err == ""


def test_a_wav_from_a_pipe_is_read_to_its_end(tmp_path) -> None:
    path = tmp_path / "piped.wav"
    soundfile.write(path, tone(), 16_000, subtype="PCM_16")
    whole = read_audio(path, sample_rate=16_000)
    data = bytearray(path.read_bytes())
    for at in (4, data.index(b"data") + 4):
        data[at : at + 4] = b"\xff" * 4
    path.write_bytes(data)
    assert read_audio(path, sample_rate=16_000).equal(whole)
    assert check_audio(path).samples == whole.shape[1]


def test_a_float_file_beyond_full_scale_is_made_quieter_and_not_clipped(
    tmp_path, caplog, monkeypatch
) -> None:
    monkeypatch.setattr(logging.getLogger("csm"), "propagate", True)
    time = np.arange(16_000) / 16_000
    sound = (1.5 * np.sin(2 * np.pi * 200 * time)).astype(np.float32)
    soundfile.write(tmp_path / "loud.wav", sound, 16_000, subtype="FLOAT")
    info = check_audio(tmp_path / "loud.wav")
    assert info.loudest == pytest.approx(1.5, abs=1e-3) and info.clipped == 0
    copy_audio(tmp_path / "loud.wav", tmp_path / "copy.flac", info)
    assert "loud.wav: its samples reach 1.50 times full scale: its copy is 3.5 dB quieter" in caplog.text
    copied = read_audio(tmp_path / "copy.flac", sample_rate=16_000)[0].numpy()
    np.testing.assert_allclose(copied, sound / info.loudest, atol=1e-4)
    soundfile.write(tmp_path / "fair.wav", sound / 2, 16_000, subtype="FLOAT")
    assert check_audio(tmp_path / "fair.wav").loudest == pytest.approx(0.75, abs=1e-3)
