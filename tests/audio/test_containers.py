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
    "aac": ("adts", "aac"),
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


@pytest.mark.parametrize("ending", ["m4a", "mka", "webm", "wma"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_truncated_container_is_refused_by_its_figures(tmp_path, ending: str, share: float) -> None:
    path = encoded(tmp_path / f"talk.{ending}", seconds=20.0)
    whole = path.read_bytes()
    path.write_bytes(whole[: round(share * len(whole))])
    with pytest.raises(ValueError, match="truncated|reads|cannot be read past"):
        playable(path, tmp_path)
    assert not list(tmp_path.glob("*.flac")) and not list(tmp_path.glob("*.part"))


def test_a_video_longer_than_its_sound_is_whole_and_a_truncated_one_is_not(tmp_path) -> None:
    path = tmp_path / "talk.mkv"
    with av.open(str(path), "w", format="matroska") as container:
        audio, video = (
            container.add_stream("aac", rate=48_000, layout="mono"),
            container.add_stream("mpeg4", 25),
        )
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        for number in range(24 * 47):
            samples = np.full((1, 1024), 0.1 * (-1) ** number, np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48_000, 1024 * number
            container.mux(audio.encode(frame))
        for number in range(25 * 40):
            frame = av.VideoFrame(64, 64, "yuv420p")
            frame.pts = number
            container.mux(video.encode(frame))
        container.mux([*audio.encode(None), *video.encode(None)])
    assert abs(soundfile.info(playable(path, tmp_path)).duration - 24 * 47 * 1024 / 48_000) < 0.1
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 4])
    with pytest.raises(ValueError, match="is truncated: its header states"):
        playable(path, tmp_path)


def test_a_stream_without_a_header_is_whole_however_its_bit_rate_changes(tmp_path) -> None:
    path = tmp_path / "talk.aac"
    with av.open(str(path), "w", format="adts") as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        noise = np.random.default_rng(0)
        for number in range(1000):  # silence, then noise: the first bit rate is a small one
            samples = noise.normal(0, 0.2 * (number > 300), (1, 1024)).astype(np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 48_000, 1024 * number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert abs(soundfile.info(playable(path, tmp_path)).duration - 1000 * 1024 / 48_000) < 0.1


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
