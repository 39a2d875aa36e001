"""Audio in and out: any format that libsndfile reads, in constant memory, refused with a reason when bad."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from csm.audio.resampling import resample

BLOCK_SAMPLES = 1 << 18  # 24 s at 11,025 Hz; 1 MiB of float32 a channel
SILENCE_PEAK = 10 ** (-60 / 20)  # -60 dBFS: under the noise floor of 16-bit speech recordings


@dataclass(frozen=True, kw_only=True)
class AudioInfo:
    """What a whole pass over an audio file found.

    Attributes:
        sample_rate: Hz.
        channels: Number of channels.
        samples: Samples per channel that could really be read.
        mean: Mean of each channel (a constant offset, 0 in a good recording).
        peak: Largest distance from that mean over all channels, full scale = 1.
        clipped: Share of samples at full scale.
    """

    sample_rate: int
    channels: int
    samples: int
    mean: tuple[float, ...]
    peak: float
    clipped: float

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.samples / self.sample_rate


def read_audio(
    path: str | Path,
    *,
    sample_rate: int,
    start: float = 0.0,
    end: float | None = None,
    channel: int | None = None,
) -> Tensor:
    """Reads one channel of an audio file, or a stretch of it, at the wanted rate.

    Args:
        path: Any file that libsndfile reads, whatever its extension says.
        sample_rate: Wanted rate in Hz; resampled where the file has another one.
        start, end: Seconds in the file; `end` None reads to the end.
        channel: Which channel, from 0. None is allowed for one-channel files only: mixing two
            speakers into one channel is never done silently.

    Returns:
        float32 [1, S].

    Raises:
        ValueError: Missing, unreadable, empty or truncated file, non-finite samples, no such channel
            or stretch; the message names the file.
    """
    if sample_rate <= 0:
        raise ValueError(f"sample_rate={sample_rate}; expected Hz above zero")
    with _AudioFile(path) as file:
        rate, channels = file.sound.samplerate, file.sound.channels
        if channel is None and channels > 1:
            raise ValueError(
                f"{file.name}: has {channels} channels; say which one with channel=0..{channels - 1}"
            )
        if not 0 <= (channel or 0) < channels:
            raise ValueError(f"{file.name}: has {channels} channels, channel {channel} was asked for")
        first = round(start * rate)
        last = None if end is None else round(end * rate)
        if first < 0 or (last is not None and last <= first):
            raise ValueError(f"{file.name}: start={start}, end={end} s is no stretch of audio")
        if first >= file.sound.frames and first > 0:
            raise ValueError(
                f"{file.name}: start={start} s lies past its end ({file.sound.frames / rate:.3f} s)"
            )
        blocks = [block[:, channel or 0] for block in file.blocks(first, last)]
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if last is not None and len(samples) < last - first - 1:
        raise ValueError(f"{file.name}: ends at {(first + len(samples)) / rate:.3f} s, {end} s was asked for")
    if len(samples) == 0:
        raise ValueError(f"{file.name}: holds no audio")
    if not np.isfinite(samples).all():
        raise ValueError(f"{file.name}: holds samples that are NaN or infinite")
    waveform = torch.from_numpy(np.ascontiguousarray(samples))[None]
    return waveform if rate == sample_rate else resample(waveform[0], rate, sample_rate)[None]


def write_audio(path: str | Path, waveform: Tensor, sample_rate: int) -> None:
    """Writes 16-bit PCM WAV (or FLAC for a name ending in .flac), atomically: whole or not at all.

    Args:
        path: Target; its folder is made.
        waveform: [C, S], full scale = 1; values beyond are clipped.
        sample_rate: Hz.

    Raises:
        ValueError: Wrong shape, empty or non-finite waveform.
    """
    if waveform.ndim != 2 or 0 in waveform.shape:
        raise ValueError(
            f"{path}: waveform has shape {tuple(waveform.shape)}; expected [channels, samples], not empty"
        )
    samples = waveform.detach().to("cpu", torch.float32)
    if not torch.isfinite(samples).all():
        raise ValueError(f"{path}: waveform holds NaN or infinite samples; nothing written")
    with AtomicAudioWriter(path, sample_rate, waveform.shape[0]) as writer:
        writer.write(samples.T.numpy())


class AtomicAudioWriter:
    """Writes an audio file in blocks under a temporary name and renames it when all went well."""

    def __init__(self, path: str | Path, sample_rate: int, channels: int) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = self.path.with_name(self.path.name + ".part")
        # Opened here, not by name: libsndfile takes no name that the file system's encoding lacks.
        self._file = open(self._temporary, "w+b")  # noqa: SIM115
        try:
            self._sound = soundfile.SoundFile(
                self._file,
                "w",
                samplerate=sample_rate,
                channels=channels,
                format="FLAC" if self.path.suffix == ".flac" else "WAV",
                subtype="PCM_16",
            )
        except soundfile.SoundFileError as error:
            self._file.close()
            self._temporary.unlink(missing_ok=True)
            raise ValueError(
                f"{self.path}: cannot be written at {sample_rate} Hz, {channels} channels"
            ) from error

    def write(self, block: np.ndarray) -> None:
        """Appends float samples [S, C]; what lies beyond full scale is clipped."""
        # Rounding here, not in libsndfile, whose float conversion differs between versions.
        scaled = np.rint(np.clip(block, -1.0, 1.0) * 32768.0)
        try:
            self._sound.write(np.minimum(scaled, 32767.0).astype(np.int16))
        except (AssertionError, soundfile.SoundFileError) as error:  # soundfile asserts that all was written
            raise OSError(f"{self.path}: cannot be written; is the disk full?") from error

    def __enter__(self) -> AtomicAudioWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._sound.close()
        self._file.close()
        if kind is None:
            os.replace(self._temporary, self.path)
        else:
            self._temporary.unlink(missing_ok=True)


def sample_rate_of(path: str | Path) -> int:
    """Hz of an audio file, by its header.

    Raises:
        ValueError: Missing, empty, unreadable or truncated; the message names the file.
    """
    with _AudioFile(path) as file:
        return int(file.sound.samplerate)


def iter_blocks(path: str | Path, samples: int = BLOCK_SAMPLES) -> Iterator[np.ndarray]:
    """Yields float32 [S, C] blocks of `samples`, the last may be shorter: any length in constant memory."""
    with _AudioFile(path) as file:
        yield from file.blocks(0, None, samples)


def check_audio(path: str | Path) -> AudioInfo:
    """Reads a whole file once and refuses what no training can use.

    Returns:
        What was found; `mean` is for `copy_audio`, which takes a constant offset out.

    Raises:
        ValueError: Missing, empty, unreadable, truncated, non-finite, silent (under -60 dBFS once a
            constant offset is taken out) or clipped in more than a tenth of its samples.
    """
    with _AudioFile(path) as file:
        channels = file.sound.channels
        total, low, high = np.zeros(channels), np.full(channels, np.inf), np.full(channels, -np.inf)
        samples = clipped = 0
        for block in file.blocks(0, None):
            if not np.isfinite(block).all():
                raise ValueError(f"{file.name}: holds samples that are NaN or infinite")
            total += block.sum(0, dtype=np.float64)
            low, high = np.minimum(low, block.min(0)), np.maximum(high, block.max(0))
            clipped += int((np.abs(block) >= 0.9999).sum())
            samples += len(block)
        if samples == 0:
            raise ValueError(f"{file.name}: holds no audio")
        mean = total / samples
        info = AudioInfo(
            sample_rate=file.sound.samplerate,
            channels=channels,
            samples=samples,
            mean=tuple(mean.tolist()),
            peak=float(np.maximum(high - mean, mean - low).max()),
            clipped=clipped / (samples * channels),
        )
    if info.peak < SILENCE_PEAK:
        kind = "constant (DC only)" if np.abs(mean).max() >= SILENCE_PEAK else "silent"
        raise ValueError(f"{file.name}: is {kind}: nothing above -60 dBFS")
    if info.clipped > 0.1:
        raise ValueError(f"{file.name}: {info.clipped:.0%} of its samples are clipped; lower the gain")
    return info


def copy_audio(source: str | Path, target: str | Path, info: AudioInfo) -> None:
    """Writes `source` as 16-bit FLAC or WAV in constant memory, without its constant offset."""
    # Under 0.1 % of full scale an offset is inaudible, and the samples stay exactly as they came.
    offset = np.array([m if abs(m) > 1e-3 else 0.0 for m in info.mean], dtype=np.float32)
    with AtomicAudioWriter(target, info.sample_rate, info.channels) as writer:
        for block in iter_blocks(source):
            writer.write(block - offset)


class _AudioFile:
    """An open audio file whose header is not believed: reads blocks until the data really ends."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        # Names need not be valid UTF-8; messages and ledgers must be.
        self.name = os.fsencode(self.path.name).decode("utf-8", "backslashreplace")

    def __enter__(self) -> _AudioFile:
        if not self.path.is_file():
            raise ValueError(f"{self.name}: no such file ({self.path.parent})")
        if self.path.stat().st_size == 0:
            raise ValueError(f"{self.name}: is empty (0 bytes)")
        _refuse_truncated_wav(self.path, self.name)
        # Opened here, not by name: libsndfile takes no name that is not valid UTF-8.
        self._file = open(self.path, "rb")  # noqa: SIM115
        try:
            self.sound = soundfile.SoundFile(self._file)
        except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
            self._file.close()
            raise ValueError(f"{self.name}: is no audio that can be read ({error})") from error
        return self

    def __exit__(self, *_: object) -> None:
        self.sound.close()
        self._file.close()

    def blocks(self, first: int, last: int | None, samples: int = BLOCK_SAMPLES) -> Iterator[np.ndarray]:
        promised = self.sound.frames
        position = first
        try:
            if first:
                self.sound.seek(first)
            while last is None or position < last:
                wanted = samples if last is None else min(samples, last - position)
                block = self.sound.read(wanted, dtype="float32", always_2d=True)
                if len(block) == 0:
                    break
                position += len(block)
                yield block
        except soundfile.SoundFileError as error:
            raise ValueError(f"{self.name}: cannot be read past sample {position} ({error})") from error
        # MP3 headers only estimate a length; the others state it.
        if last is None and position < promised and self.sound.format != "MP3":
            raise ValueError(
                f"{self.name}: is truncated: its header states {promised} samples, it holds {position}"
            )


def _refuse_truncated_wav(path: Path, name: str) -> None:
    """libsndfile shortens a WAV silently when the data chunk is longer than the file; this tells."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF" or head[8:12] != b"WAVE":
            return
        while len(chunk := file.read(8)) == 8:
            length = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                held = size - file.tell()
                if length > held:
                    raise ValueError(
                        f"{name}: is truncated: its header states {length} bytes of samples, {held} are there"
                    )
                return
            file.seek(length + length % 2, 1)
