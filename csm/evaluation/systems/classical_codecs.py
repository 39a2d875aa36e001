"""Classical codecs as anchors beside a tokenizer: Opus and Codec2, by their own commands."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import soundfile

from csm.evaluation.core.clips import EVALUATION_RATE, at_rate

CODEC2_RATE = 8000  # Hz; Codec2 has no other
_CODEC2_TAIL = 1280  # zeros, 160 ms: four frames of 40 ms, so that its delay cuts no speech off
_TIMEOUT = 60.0  # seconds; a clip takes a fraction of one


class Coded(NamedTuple):
    """A clip after a codec.

    Attributes:
        waveform: Decoded waveform, float32 [S] at 16 kHz, with the codec's delay.
        bits: Number of bits without any container; None where the format does not state it.
    """

    waveform: np.ndarray
    bits: int | None


@dataclass(frozen=True, kw_only=True)
class Anchor:
    """One codec at one bit rate.

    Attributes:
        name: Name in the report. title: Name for readers.
        kbits: Nominal bit rate in kilobits per second.
        commands: Commands that must be installed. package: Debian package that brings them.
        code: Function from a mono 16 kHz float waveform [S] to the coded clip; ValueError where a command
            fails.
    """

    name: str
    title: str
    kbits: float
    commands: tuple[str, ...]
    package: str
    code: Callable[[np.ndarray], Coded]

    @property
    def missing(self) -> str:
        """Why the codec is not available here, with the remedy; empty where it is."""
        lost = [command for command in self.commands if shutil.which(command) is None]
        return f"not installed: apt install {self.package}" if lost else ""


def opus(waveform: np.ndarray, *, kbits: int) -> Coded:
    """Codes a mono 16 kHz waveform [S] with Opus (RFC 6716), variable bit rate, tuned for speech."""
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, EVALUATION_RATE, format="WAV", subtype="PCM_16")
    stream = _run(["opusenc", "--quiet", "--speech", "--bitrate", str(kbits), "-", "-"], buffer.getvalue())
    # As floats: 16-bit output would be dithered with noise that differs from run to run.
    rate = ["--rate", str(EVALUATION_RATE), "--float", "--force-wav"]
    decoded, _ = soundfile.read(
        io.BytesIO(_run(["opusdec", "--quiet", *rate, "-", "-"], stream)), dtype="float32"
    )
    return Coded(decoded, ogg_audio_bits(stream))


def ogg_audio_bits(stream: bytes) -> int:
    """Counts bits of the audio packets of an Ogg Opus stream: no pages, no header, no tags (RFC 3533, RFC
    7845).

    Raises:
        ValueError: The bytes are no Ogg stream.
    """
    sizes, size, at = [], 0, 0
    while at < len(stream):
        if stream[at : at + 4] != b"OggS" or at + 27 > len(stream):
            raise ValueError(f"no Ogg page at byte {at}; expected the output of opusenc")
        lacing = stream[at + 27 : at + 27 + stream[at + 26]]
        for value in lacing:
            size += value
            if value < 255:  # a packet ends with the first lacing value under 255
                sizes.append(size)
                size = 0
        at += 27 + len(lacing) + sum(lacing)
    return 8 * sum(sizes[2:])  # the first two packets are OpusHead and OpusTags


def codec2(waveform: np.ndarray, *, mode: str) -> Coded:
    """Codes a mono 16 kHz waveform [S] with Codec2 in one of its modes (bits per second), at 8 kHz.

    Its files pad every frame to whole bytes (1300 bit/s become 1400), so their size is not the bit rate.
    """
    samples = np.clip(at_rate(waveform, EVALUATION_RATE, CODEC2_RATE), -1.0, 1.0)
    samples = np.concatenate([samples, np.zeros(_CODEC2_TAIL, np.float32)])
    stream = _run(["c2enc", mode, "-", "-"], (samples * 32767.0).astype("<i2").tobytes())
    decoded = np.frombuffer(_run(["c2dec", mode, "-", "-"], stream), "<i2").astype(np.float32) / 32768.0
    return Coded(at_rate(decoded, CODEC2_RATE, EVALUATION_RATE), None)


def _run(command: list[str], given: bytes) -> bytes:
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=_TIMEOUT, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ValueError(f"{command[0]}: {type(error).__name__}") from error
    if done.returncode != 0 or not done.stdout:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[:120]
        raise ValueError(f"{command[0]} ended with status {done.returncode}: {said or 'no output'}")
    return done.stdout


def _opus_at(kbits: int) -> Anchor:
    return Anchor(
        name=f"opus_{kbits}k",
        title=f"Opus {kbits}k",
        kbits=float(kbits),
        commands=("opusenc", "opusdec"),
        package="opus-tools",
        code=partial(opus, kbits=kbits),
    )


def _codec2_at(mode: int) -> Anchor:
    return Anchor(
        name=f"codec2_{mode}",
        title=f"Codec2 {mode}",
        kbits=mode / 1000,
        commands=("c2enc", "c2dec"),
        package="codec2",
        code=partial(codec2, mode=str(mode)),
    )


ANCHORS = (_opus_at(6), _opus_at(12), _opus_at(16), _codec2_at(3200), _codec2_at(1300))
