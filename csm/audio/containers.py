"""Audio that libsndfile does not read (m4a, mp4, aac, webm, wma, mka), decoded by PyAV to FLAC in blocks."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from csm.audio.files import AtomicAudioWriter
from csm.system.extras import missing_package
from csm.system.files import hash_key

LONGEST_MISSING = 1.0  # seconds that a container may state more than it holds: headers round
# Streams without a header, whose length FFmpeg estimates by their first bit rate, wrong by any factor.
HEADERLESS = frozenset("aac ac3 eac3 amr amrnb amrwb dts loas mp3 mpeg mpegts".split())
TAGGED = re.compile(r"(\d+):(\d+):(\d+(?:\.\d+)?)")  # the length of a stream in Matroska and WebM


def channels_of(path: Path) -> int:
    """Returns the number of channels of an audio file or of the first audio stream of a container.

    Raises:
        ValueError: Neither libsndfile nor PyAV reads it.
    """
    with open(path, "rb") as file:
        try:
            return int(soundfile.info(file).channels)
        except (soundfile.SoundFileError, RuntimeError, TypeError):
            pass  # a container
    with _Container(path) as container:
        return len(container.stream.layout.channels)


def length_of(path: Path) -> float | None:
    """Returns the length in seconds that an audio file states, None where libsndfile reads none."""
    if not path.is_file():  # a pipe would be waited for
        return None
    try:
        with open(path, "rb") as file:
            info = soundfile.info(file)
    except (OSError, soundfile.SoundFileError, RuntimeError, TypeError):
        return None
    # A WAV from a pipe states 2**32 bytes.
    return float(info.duration) if 0 < info.frames < 2**31 else None


def playable(path: Path, folder: Path) -> Path:
    """Returns a path that libsndfile reads: the file itself, or its audio as FLAC in `folder`.

    Containers are decoded block by block, in constant memory, at their own sample rate. Samples are rounded
    to 16 bits, which is what the corpus holds.

    Raises:
        ValueError: Neither reads it, it has no audio, it is truncated or damaged; the message names the file.
    """
    with open(path, "rb") as file:
        try:
            soundfile.info(file)
            return path
        except (soundfile.SoundFileError, RuntimeError, TypeError):
            pass  # a container
    shown = os.fsencode(path).decode("utf-8", "surrogateescape")
    target = folder / f"{hash_key(shown).hex()[:20]}.flac"
    with _Container(path) as container:
        container.decode_to(target)
    return target


class _Container:
    """An open container with its first audio stream."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = os.fsencode(path.name).decode("utf-8", "backslashreplace")
        try:
            import av
        except ImportError as error:
            raise ValueError(
                f"{self.name}: {missing_package('av', 'reading what libsndfile does not')}, or convert it to "
                "WAV or FLAC"
            ) from error
        self.av: Any = av

    def __enter__(self) -> _Container:
        if self.path.stat().st_size == 0:
            raise ValueError(f"{self.name}: has 0 bytes: expected an audio file; copy it again")
        self._file = open(self.path, "rb")  # noqa: SIM115  (a file, not its name, which may be no UTF-8)
        try:
            self.container = self.av.open(self._file)
        except (self.av.FFmpegError, ValueError) as error:
            self._file.close()
            raise ValueError(
                f"{self.name}: is no audio that libsndfile or PyAV reads ({error}); copy it again"
            ) from error
        if not self.container.streams.audio:
            self.__exit__()
            raise ValueError(f"{self.name}: holds no audio stream: expected one; leave it out")
        self.stream = self.container.streams.audio[0]
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()
        self._file.close()

    def decode_to(self, target: Path) -> None:
        """Writes the stream as FLAC."""
        rate, layout = self.stream.rate, self.stream.layout
        channels = len(layout.channels)
        resampler = self.av.AudioResampler(format="flt", layout=layout, rate=rate)
        samples = 0
        try:
            with AtomicAudioWriter(target, rate, channels) as writer:
                for frame in self.container.decode(self.stream):
                    for part in resampler.resample(frame):
                        block = part.to_ndarray().reshape(-1, channels)
                        if not np.isfinite(block).all():
                            raise ValueError(
                                f"{self.name}: holds samples that are NaN or infinite; export it again"
                            )
                        samples += len(block)
                        writer.write(block)
                self._require_whole(samples / rate)
        except self.av.FFmpegError as error:
            raise ValueError(
                f"{self.name}: cannot be read past {samples / rate:.2f} s ({error}); copy it again"
            ) from error

    def _require_whole(self, seconds: float) -> None:
        if seconds == 0:
            raise ValueError(f"{self.name}: holds no audio: expected at least one sample; leave it out")
        promised = self._stated()
        if seconds < promised - LONGEST_MISSING:
            raise ValueError(
                f"{self.name}: is truncated: its header states {promised:.2f} s, it holds {seconds:.2f}; "
                "copy it again"
            )

    def _stated(self) -> float:
        """Returns the seconds that a header states, 0 where none does."""
        if HEADERLESS & set(self.container.format.name.split(",")):
            return 0.0
        if self.stream.duration:
            return float(self.stream.duration * self.stream.time_base)
        if tag := TAGGED.fullmatch(self.stream.metadata.get("DURATION", "")):
            return 3600 * int(tag[1]) + 60 * int(tag[2]) + float(tag[3])
        # The length of the whole is also that of a video, which may be longer.
        return (self.container.duration or 0) / 1e6 if len(self.container.streams) == 1 else 0.0
