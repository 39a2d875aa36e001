"""Audio files: reads every format of libsndfile in blocks, checks files, writes WAV and FLAC atomically."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from csm.audio.resampling import resample
from csm.audio.truncation import refuse_truncated
from csm.system.files import full_disk_named
from csm.system.log import log

BLOCK_SAMPLES = 1 << 18  # 24 s at 11,025 Hz; 1 MiB of float32 a channel
SILENCE_PEAK = 10 ** (-60 / 20)  # -60 dBFS: below the noise floor of 16-bit speech recordings

_NO_SAMPLES = "{}: holds no audio: expected at least one sample; record it again or leave it out"
_NOT_FINITE = "{}: holds samples that are NaN or infinite: expected finite samples; export it again"


@dataclass(frozen=True, kw_only=True)
class AudioInfo:
    """Statistics of an audio file from one pass over its samples.

    Attributes:
        sample_rate: Sample rate in Hz.
        channels: Number of channels.
        samples: Number of samples per channel that were read, whatever the header states.
        mean: Mean of each channel (DC offset, 0 in a good recording), full scale = 1.
        peak: Largest distance from that mean over all channels, full scale = 1.
        clipped: Share of samples at full scale, 0 to 1.
        loudest: Largest absolute sample of a file of floating-point samples, 1 of others: what a decoder of
            a lossy format returns beyond full scale is clipped, as players do.
    """

    sample_rate: int
    channels: int
    samples: int
    mean: tuple[float, ...]
    peak: float
    clipped: float
    loudest: float = 1.0

    @property
    def duration(self) -> float:
        """Duration in seconds."""
        return self.samples / self.sample_rate


def read_audio(
    path: str | Path,
    *,
    sample_rate: int,
    start: float = 0.0,
    end: float | None = None,
    channel: int | None = None,
) -> Tensor:
    """Reads one channel of an audio file, or a part of it, at the requested sample rate.

    Args:
        path: Any file that libsndfile reads, whatever its extension.
        sample_rate: Requested rate in Hz; a file of another rate is resampled.
        start, end: Boundaries in seconds; `end` None reads to the end of the file.
        channel: Channel, from 0. None requires a file of one channel, because a mix of two speakers must
            not happen unnoticed.

    Returns:
        Waveform float32 [1, S], full scale = 1.

    Raises:
        ValueError: The file is missing, unreadable, empty or truncated, has samples that are not finite, or
            lacks the channel or the part; the message names the file.
    """
    if sample_rate <= 0:
        raise ValueError(
            f"sample_rate is {sample_rate}: expected Hz above 0; give the rate that the waveform shall have"
        )
    with _AudioFile(path) as file:
        rate, channels = file.sound.samplerate, file.sound.channels
        if channel is None and channels > 1:
            raise ValueError(
                f"{file.name}: has {channels} channels: expected 1; choose one with channel=0..{channels - 1}"
            )
        if not 0 <= (channel or 0) < channels:
            raise ValueError(
                f"{file.name}: channel is {channel}: expected 0..{channels - 1}; choose one of these"
            )
        first = round(start * rate)
        last = None if end is None else round(end * rate)
        if first < 0 or (last is not None and last <= first):
            raise ValueError(
                f"{file.name}: start={start}, end={end} s: expected 0 <= start < end; correct the times"
            )
        if first >= file.sound.frames and first > 0:
            raise ValueError(
                f"{file.name}: start is {start} s: expected a time before its end, "
                f"{file.sound.frames / rate:.3f} s; correct the times"
            )
        blocks = [block[:, channel or 0] for block in file.blocks(first, last)]
    samples = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    if last is not None and len(samples) < last - first - 1:
        raise ValueError(
            f"{file.name}: end is {end} s: expected at most its duration, "
            f"{(first + len(samples)) / rate:.3f} s; correct the times"
        )
    if len(samples) == 0:
        raise ValueError(_NO_SAMPLES.format(file.name))
    if not np.isfinite(samples).all():
        raise ValueError(_NOT_FINITE.format(file.name))
    waveform = torch.from_numpy(np.ascontiguousarray(samples))[None]
    return waveform if rate == sample_rate else resample(waveform[0], rate, sample_rate)[None]


def write_audio(path: str | Path, waveform: Tensor, sample_rate: int) -> None:
    """Writes 16-bit PCM WAV, or FLAC for a name that ends in .flac, atomically.

    Args:
        path: Path of the file; missing folders are created.
        waveform: Waveform [C, S], full scale = 1; larger values are clipped.
        sample_rate: Sample rate in Hz.

    Raises:
        ValueError: The waveform has another shape, is empty or is not finite.
    """
    if waveform.ndim != 2 or 0 in waveform.shape:
        raise ValueError(
            f"{path}: waveform has shape {tuple(waveform.shape)}: expected [channels, samples], not empty; "
            f"reshape it"
        )
    samples = waveform.detach().to("cpu", torch.float32)
    if not torch.isfinite(samples).all():
        raise ValueError(
            f"{path}: waveform holds NaN or infinite samples: expected finite ones; nothing was written"
        )
    with AtomicAudioWriter(path, sample_rate, waveform.shape[0]) as writer:
        writer.write(samples.T.numpy())


class AtomicAudioWriter:
    """Context manager that writes an audio file block by block and renames it into place on success."""

    def __init__(self, path: str | Path, sample_rate: int, channels: int) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = self.path.with_name(self.path.name + ".part")
        # An open file, not its name: libsndfile rejects names outside the file system's encoding.
        self._file = open(self._temporary, "w+b", buffering=0)  # noqa: SIM115
        self._target = _WriteErrors(self._file)
        try:
            self._sound = soundfile.SoundFile(
                self._target,
                "w",
                samplerate=sample_rate,
                channels=channels,
                format="FLAC" if self.path.suffix == ".flac" else "WAV",
                subtype="PCM_16",
            )
        except soundfile.SoundFileError as error:
            self._file.close()
            self._temporary.unlink(missing_ok=True)
            self._require_written()
            raise ValueError(
                f"{self.path}: sample_rate is {sample_rate}, channels is {channels}: expected what the "
                f"format supports; choose other values"
            ) from error

    def write(self, block: np.ndarray) -> None:
        """Appends float samples [S, C]; values beyond full scale are clipped."""
        # Rounded here because the float conversion of libsndfile differs between its versions.
        scaled = np.rint(np.clip(block, -1.0, 1.0) * 32768.0)
        try:
            self._sound.write(np.minimum(scaled, 32767.0).astype(np.int16))
        except (AssertionError, soundfile.SoundFileError):  # soundfile asserts that all was written
            self._require_written()
            raise

    def __enter__(self) -> AtomicAudioWriter:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self._sound.close()
            if kind is None:
                self._require_written()  # the last block and the header are written when libsndfile closes
                os.replace(self._temporary, self.path)
        finally:
            self._file.close()
            self._temporary.unlink(missing_ok=True)

    def _require_written(self) -> None:
        if (error := self._target.error) is not None:
            with full_disk_named(self.path):
                raise error


class _WriteErrors:
    """A file that keeps the error of a write, which libsndfile does not report.

    Args:
        file: Unbuffered, so that no write is late.

    Attributes:
        error: The first one.
    """

    def __init__(self, file: io.FileIO) -> None:
        self.seek, self.tell, self.readinto = file.seek, file.tell, file.readinto
        self._write = file.write
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Writes all of `data`; returns 0 after an error."""
        done = 0
        try:
            while done < len(data) and self.error is None:
                done += self._write(data[done:]) or 0
        except OSError as error:
            self.error = error
        return 0 if self.error is not None else done


def sample_rate_of(path: str | Path) -> int:
    """Returns the sample rate in Hz that the header of an audio file states.

    Raises:
        ValueError: The file is missing, empty, unreadable or truncated; the message names it.
    """
    with _AudioFile(path) as file:
        return int(file.sound.samplerate)


def iter_blocks(path: str | Path, samples: int = BLOCK_SAMPLES) -> Iterator[np.ndarray]:
    """Yields blocks float32 [`samples`, C] of a file; the last one may be shorter."""
    with _AudioFile(path) as file:
        yield from file.blocks(0, None, samples)


def check_audio(path: str | Path) -> AudioInfo:
    """Reads a whole file once and raises an error if its audio is unusable for training.

    Returns:
        Statistics of the file; `copy_audio` subtracts `mean`.

    Raises:
        ValueError: The file is missing, empty, unreadable, truncated, not finite, silent (below -60 dBFS
            after the DC offset is subtracted) or clipped in more than a tenth of its samples.
    """
    with _AudioFile(path) as file:
        channels = file.sound.channels
        total, low, high = np.zeros(channels), np.full(channels, np.inf), np.full(channels, -np.inf)
        samples = clipped = 0
        for block in file.blocks(0, None):
            if not np.isfinite(block).all():
                raise ValueError(_NOT_FINITE.format(file.name))
            total += block.sum(0, dtype=np.float64)
            low, high = np.minimum(low, block.min(0)), np.maximum(high, block.max(0))
            clipped += int((np.abs(block) >= 0.9999).sum())
            samples += len(block)
        if samples == 0:
            raise ValueError(_NO_SAMPLES.format(file.name))
        mean = total / samples
        loudest = float(np.abs([low, high]).max()) if file.sound.subtype in ("FLOAT", "DOUBLE") else 1.0
        info = AudioInfo(
            sample_rate=file.sound.samplerate,
            channels=channels,
            samples=samples,
            mean=tuple(mean.tolist()),
            peak=float(np.maximum(high - mean, mean - low).max()),
            # Beyond full scale nothing is lost yet: the copy is made quieter.
            clipped=0.0 if loudest > 1 else clipped / (samples * channels),
            loudest=loudest,
        )
    if info.peak < SILENCE_PEAK:
        kind = "constant (DC only)" if np.abs(mean).max() >= SILENCE_PEAK else "silent"
        raise ValueError(f"{file.name}: is {kind}: expected a peak above -60 dBFS; record it again")
    if info.clipped > 0.1:
        raise ValueError(
            f"{file.name}: {info.clipped:.0%} of its samples are clipped: expected at most 10%; lower the "
            f"gain and record it again"
        )
    return info


def copy_audio(source: str | Path, target: str | Path, info: AudioInfo) -> None:
    """Writes a copy of `source` as 16-bit FLAC or WAV, block by block and without its DC offset.

    A file of floating-point samples beyond full scale is made quieter as a whole, with a warning.
    """
    # An offset below 0.1 % of full scale is inaudible: the samples are then copied unchanged.
    offset = np.array([m if abs(m) > 1e-3 else 0.0 for m in info.mean], dtype=np.float32)
    gain = np.float32(1 / max(1.0, info.loudest))
    if gain < 1:
        log.warning(
            "%s: its samples reach %.2f times full scale: its copy is %.1f dB quieter",
            Path(source).name,
            info.loudest,
            20 * np.log10(info.loudest),
        )
    with AtomicAudioWriter(target, info.sample_rate, info.channels) as writer:
        for block in iter_blocks(source):
            writer.write((block - offset) * gain if gain < 1 else block - offset)


class _AudioFile:
    """An open audio file. It is read until its data ends, because headers may state a wrong length."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        # File names may be invalid UTF-8; messages and reject ledgers must not be.
        self.name = os.fsencode(self.path.name).decode("utf-8", "backslashreplace")

    def __enter__(self) -> _AudioFile:
        if not self.path.is_file():
            raise ValueError(
                f"{self.name}: no such file in {self.path.parent}: expected an audio file; correct the path"
            )
        if self.path.stat().st_size == 0:
            raise ValueError(f"{self.name}: has 0 bytes: expected an audio file; copy it again")
        refuse_truncated(self.path, self.name)
        # An open file, not its name: libsndfile rejects names that are invalid UTF-8.
        self._file = open(self.path, "rb")  # noqa: SIM115
        try:
            self.sound = soundfile.SoundFile(self._file)
        except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
            self._file.close()
            raise ValueError(
                f"{self.name}: is no audio that libsndfile reads ({error}); convert it to WAV or FLAC"
            ) from error
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
            raise ValueError(
                f"{self.name}: cannot be read past sample {position} ({error}); copy it again"
            ) from error
        # An MP3 header only estimates the length; the headers of other formats state it.
        if last is None and position < promised and self.sound.format != "MP3":
            raise ValueError(
                f"{self.name}: is truncated: its header states {promised} samples, it holds {position}; "
                f"copy it again"
            )
