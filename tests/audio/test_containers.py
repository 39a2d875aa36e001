"""Audio in containers that libsndfile does not read."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from csm.audio.containers import channels_of, playable

av = pytest.importorskip("av")
FORMATS = {
    "m4a": ("mp4", "aac"),
    "mka": ("matroska", "aac"),
    "webm": ("webm", "libopus"),
    "wma": ("asf", "wmav2"),
}


def encoded(path: Path, *, seconds: float = 3.0, channels: int = 1, rate: int = 48_000) -> Path:
    """Writes a tone of 440 Hz a channel higher."""
    layout = "mono" if channels == 1 else "stereo"
    muxer, codec = FORMATS[path.suffix[1:]]
    times = np.arange(round(seconds * rate)) / rate
    samples = np.stack([0.3 * np.sin(2 * np.pi * 440 * (c + 1) * times) for c in range(channels)], 1)
    with av.open(str(path), "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 128_000  # wmav2 has no default for every rate
        resampler = av.AudioResampler(
            format=stream.format, layout=layout, rate=rate, frame_size=stream.frame_size
        )
        packed = samples.astype(np.float32).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
        frame.sample_rate = rate
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(part))
    return path


@pytest.mark.parametrize("ending", sorted(FORMATS))
@pytest.mark.parametrize("channels", [1, 2])
def test_a_container_becomes_flac_of_its_channels_and_length(tmp_path, ending: str, channels: int) -> None:
    source = encoded(tmp_path / f"talk.{ending}", channels=channels)
    assert channels_of(source) == channels
    path = playable(source, tmp_path)
    samples, rate = soundfile.read(path, always_2d=True)
    assert path.suffix == ".flac" and rate == 48_000 and samples.shape[1] == channels
    assert abs(len(samples) / rate - 3.0) < 0.1
    for channel in range(channels):
        spectrum = np.abs(np.fft.rfft(samples[rate : 2 * rate, channel]))
        assert int(spectrum.argmax()) == 440 * (channel + 1)


def test_what_libsndfile_reads_is_left_as_it_is(tmp_path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(100), 16_000)
    assert playable(tmp_path / "a.wav", tmp_path) == tmp_path / "a.wav"


def test_a_long_container_takes_no_more_memory_than_a_short_one(tmp_path) -> None:
    peaks = []
    for seconds in (5.0, 30.0):
        source = encoded(tmp_path / f"{seconds}.m4a", seconds=seconds)
        tracemalloc.start()
        playable(source, tmp_path)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 2**18, peaks


def test_what_holds_no_whole_audio_is_one_line(tmp_path) -> None:
    (tmp_path / "empty.m4a").write_bytes(b"")
    (tmp_path / "text.m4a").write_bytes(b"no audio at all" * 100)
    whole = encoded(tmp_path / "whole.m4a").read_bytes()
    (tmp_path / "cut.m4a").write_bytes(whole[: len(whole) // 2])
    reasons = {
        "empty": "0 bytes",
        "text": "no audio that libsndfile or PyAV reads",
        "cut": "reads|read past|truncated",
    }
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=reason) as caught:
            playable(tmp_path / f"{name}.m4a", tmp_path)
        assert str(caught.value).startswith(f"{name}.m4a: ") and "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.flac")) and not list(tmp_path.glob("*.part"))
