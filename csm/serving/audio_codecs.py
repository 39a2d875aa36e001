"""What audio is on the wire: PCM16 or Opus (RFC 6716), of conversations in packets and of speech as a file.

Opus is coded by PyAV's libopus, mono at 48 kHz in frames of 20 ms.
"""

from __future__ import annotations

import importlib.util
import struct
from typing import Any, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from csm.audio.resampling import BlockResampler
from csm.system.extras import missing_package

FULL_SCALE = 32767
OPUS_RATE, OPUS_FRAME = 48_000, 960
LONGEST_PACKET_S = 0.12  # of Opus
BIT_RATE = 32_000
UNKNOWN_LENGTH = 0xFFFFFFFF
CODECS = ("pcm", "opus")


class AudioLine(Protocol):
    """Codes the audio of a conversation, message by message."""

    def decode(self, data: bytes) -> Float[Tensor, " S"]:
        """Returns the user's samples of a message, full scale = 1.

        Raises:
            ValueError: The message is no such audio.
        """

    def encode(self, samples: Float[Tensor, " S"]) -> list[bytes]:
        """Returns the messages that the voice's next samples complete."""


class PcmLine:
    """PCM16, little-endian: each message is answered by one."""

    def decode(self, data: bytes) -> Float[Tensor, " S"]:
        """Returns a message's samples."""
        if len(data) % 2:
            raise ValueError(f"audio has {len(data)} bytes: expected 16-bit samples, an even number")
        return torch.from_numpy(np.frombuffer(data, "<i2").astype(np.float32) / (FULL_SCALE + 1))

    def encode(self, samples: Float[Tensor, " S"]) -> list[bytes]:
        """Returns one message."""
        return [pcm16(samples)]


class OpusLine:
    """One Opus packet a message: the user's of 2.5 to 120 ms, decoded to 48 kHz, the voice's of 20 ms.

    Args:
        rate: Samples per second of the voice.

    Raises:
        ValueError: PyAV is missing.
    """

    def __init__(self, rate: int) -> None:
        self._av = _library("a conversation in Opus")
        self._decoder: Any = self._av.CodecContext.create("libopus", "r")
        self._decoder.sample_rate, self._decoder.layout = OPUS_RATE, "mono"
        self._encoder: Any = self._av.CodecContext.create("libopus", "w")
        _configure(self._encoder)
        self._frames = _Frames(self._av, rate)

    def decode(self, data: bytes) -> Float[Tensor, " S"]:
        """Returns a packet's samples at 48 kHz."""
        try:
            # No data would end the stream.
            frames = self._decoder.decode(self._av.Packet(data)) if data else []
        except self._av.FFmpegError as error:
            raise ValueError(f"audio of {len(data)} bytes is no Opus packet: {error}") from error
        parts = [torch.from_numpy(_mono(frame)) for frame in frames]
        samples = torch.cat(parts) if parts else torch.zeros(0)
        if not 0 < len(samples) <= LONGEST_PACKET_S * OPUS_RATE:
            raise ValueError(f"audio of {len(data)} bytes is no Opus packet: expected 2.5 to 120 ms in it")
        return samples

    def encode(self, samples: Float[Tensor, " S"]) -> list[bytes]:
        """Returns the packets that the samples complete: none to several."""
        frames = self._frames.push(samples)
        return [bytes(packet) for frame in frames for packet in self._encoder.encode(frame)]


def line_of(codec: object, rate: int) -> AudioLine:
    """Returns what codes a conversation's audio.

    Args:
        codec: One of CODECS.
        rate: Samples per second of the voice.

    Raises:
        ValueError: The codec is another, or its package is missing.
    """
    if codec not in CODECS:
        raise ValueError(f"codec is {codec!r}: expected one of {', '.join(CODECS)}")
    return OpusLine(rate) if codec == "opus" else PcmLine()


def available_codecs() -> list[str]:
    """Returns those of CODECS that this installation codes."""
    return [name for name in CODECS if name != "opus" or importlib.util.find_spec("av") is not None]


class PcmFile:
    """PCM16 behind a header, which may be empty."""

    def __init__(self, header: bytes = b"") -> None:
        self._header = header

    def push(self, samples: Float[Tensor, " S"]) -> bytes:
        """Returns the bytes of the next samples."""
        header, self._header = self._header, b""
        return header + pcm16(samples)

    def finish(self) -> bytes:
        """Returns the last bytes."""
        header, self._header = self._header, b""
        return header


class OggOpus:
    """An Ogg Opus file (RFC 7845) while it grows, a page for every 20 ms.

    Args:
        rate: Samples per second of the audio.

    Raises:
        ValueError: PyAV is missing.
    """

    def __init__(self, rate: int) -> None:
        library = _library("response_format opus")
        self._sink = _Sink()
        self._file: Any = library.open(self._sink, "w", format="ogg", options={"page_duration": "20000"})
        self._stream: Any = self._file.add_stream("libopus", rate=OPUS_RATE)
        _configure(self._stream.codec_context)
        self._frames = _Frames(library, rate)

    def push(self, samples: Float[Tensor, " S"]) -> bytes:
        """Returns the pages that the next samples complete."""
        return self._written(self._frames.push(samples))

    def finish(self) -> bytes:
        """Returns the last pages and ends the file."""
        data = self._written([*self._frames.finish(), None])
        self._file.close()
        return data + self._sink.take()

    def _written(self, frames: list[Any]) -> bytes:
        for frame in frames:
            for packet in self._stream.encode(frame):
                self._file.mux(packet)
        return self._sink.take()


class _Sink:
    """What PyAV writes to."""

    def __init__(self) -> None:
        self._data = bytearray()

    def write(self, data: bytes) -> int:
        """Keeps the bytes."""
        self._data += data
        return len(data)

    def take(self) -> bytes:
        """Returns and drops the bytes so far."""
        data, self._data = bytes(self._data), bytearray()
        return data


class _Frames:
    """Cuts samples at any rate into PyAV's frames of 20 ms at 48 kHz."""

    def __init__(self, library: Any, rate: int) -> None:
        self._av = library
        self._resampler = BlockResampler(rate, OPUS_RATE)
        self._waiting = torch.zeros(0)
        self._count = 0

    def push(self, samples: Tensor) -> list[Any]:
        """Returns the frames that the samples complete."""
        return self._cut(self._resampler.push(samples.float()))

    def finish(self) -> list[Any]:
        """Returns the last frames; the very last may be shorter."""
        frames = self._cut(self._resampler.finish())
        return [*frames, *([self._frame(self._waiting)] if len(self._waiting) else [])]

    def _cut(self, samples: Tensor) -> list[Any]:
        self._waiting = torch.cat([self._waiting, samples])
        whole = len(self._waiting) // OPUS_FRAME * OPUS_FRAME
        frames = [self._frame(part) for part in self._waiting[:whole].split(OPUS_FRAME) if len(part)]
        self._waiting = self._waiting[whole:]
        return frames

    def _frame(self, samples: Tensor) -> Any:
        frame = self._av.AudioFrame.from_ndarray(
            samples.clamp(-1, 1).numpy()[None], format="flt", layout="mono"
        )
        frame.sample_rate, frame.pts = OPUS_RATE, self._count
        self._count += len(samples)
        return frame


def pcm16(samples: Float[Tensor, " S"]) -> bytes:
    """Returns samples as PCM16, little-endian."""
    return (samples.clamp(-1, 1) * FULL_SCALE).round().to(torch.int16).numpy().astype("<i2").tobytes()


def wav_header(rate: int) -> bytes:
    """Header of a mono PCM16 WAV whose length is not known yet: its data reach to the end."""
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, 2 * rate, 2, 16)
    return (
        struct.pack("<4sI4s", b"RIFF", UNKNOWN_LENGTH, b"WAVE")
        + form
        + struct.pack("<4sI", b"data", UNKNOWN_LENGTH)
    )


def _configure(encoder: Any) -> None:
    encoder.sample_rate, encoder.layout, encoder.format = OPUS_RATE, "mono", "flt"
    encoder.bit_rate = BIT_RATE
    encoder.options = {"frame_duration": "20"}


def _mono(frame: Any) -> np.ndarray:
    """Samples [S] of a decoded frame of 16-bit or floating-point samples."""
    found = frame.to_ndarray().reshape(-1)
    return found / np.float32(FULL_SCALE + 1) if found.dtype == np.int16 else found.astype(np.float32)


def _library(user: str) -> Any:
    try:
        return importlib.import_module("av")
    except ImportError as error:
        raise ValueError(missing_package("av", user)) from error
