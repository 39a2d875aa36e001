"""Sound and pictures inside the page, as data URIs: encoded audio, outlines of waveforms, spectrograms."""

from __future__ import annotations

import base64
import io
import math
import struct
import zlib
from dataclasses import dataclass

import numpy as np
import soundfile
import torch

from csm.audio.resampling import resample

PAGE_AUDIO_BYTES = 11_000_000  # of 16-bit WAV; base64 adds a third, and the page should stay under 15 MB
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)

PICTURE_RATE, FFT, HOP = 11025, 512, 110  # Hz; samples
BANDS, LOWEST, HIGHEST = 80, 40.0, 5500.0  # mel bands between two frequencies in Hz
DECIBELS, QUIETEST_PEAK = 70.0, -30.0  # range of the picture, and the least power of its brightest shade
SHADES = 64
# Eleven equally spaced colours of matplotlib's magma, from silence to the loudest.
PALETTE = (
    *((0, 0, 4), (20, 14, 54), (59, 15, 112), (100, 26, 128), (140, 41, 129), (183, 55, 121)),
    *((222, 73, 104), (247, 112, 92), (254, 159, 109), (254, 207, 146), (252, 253, 191)),
)


@dataclass(frozen=True, kw_only=True)
class Sound:
    """One playable file.

    Attributes:
        uri: Data URI, or an address relative to the page.
        duration: Seconds.
        extension: Ending of the file's name, without a dot.
        outline: SVG path of the waveform in a box of 90 x 20; empty draws a plain bar.
    """

    uri: str
    duration: float
    extension: str
    outline: str = ""


def sound_of(channels: np.ndarray, sample_rate: int, *, lossless: bool) -> Sound:
    """Returns a waveform [C, S] as 16-bit WAV, or as MP3 where size matters.

    FLAC is a third smaller, but Chromium 156 never finishes a seek into the last quarter of short FLAC files.
    """
    channels = np.clip(np.nan_to_num(channels), -1.0, 1.0)
    buffer = io.BytesIO()
    kind, extension = ("wav", "wav") if lossless else ("mpeg", "mp3")
    if lossless:
        soundfile.write(buffer, channels.T, sample_rate, format="WAV", subtype="PCM_16")
    else:
        rate = sample_rate if sample_rate in MP3_RATES else 24000
        samples = np.stack([_at_rate(channel, sample_rate, rate) for channel in channels])
        soundfile.write(buffer, samples.T, rate, format="MP3")
    return Sound(
        uri=_data_uri(f"audio/{kind}", buffer.getvalue()),
        duration=channels.shape[1] / sample_rate,
        extension=extension,
        outline=outline(channels),
    )


def outline(channels: np.ndarray, bars: int = 90) -> str:
    """Returns the SVG path of a waveform [C, S] in a box of `bars` x 20: one symmetric stroke per bar."""
    loudest = np.abs(channels).max(axis=0)
    parts = np.array_split(loudest, min(bars, len(loudest)))
    peaks = np.array([np.sqrt((part.astype(np.float64) ** 2).mean()) for part in parts])
    heights = 0.6 + 8.9 * np.sqrt(peaks / max(float(peaks.max()), 1e-6))
    return "".join(f"M{place}.5 {10 - high:.1f}v{2 * high:.1f}" for place, high in enumerate(heights))


def spectrogram(channels: np.ndarray, sample_rate: int) -> str:
    """Returns the mel spectrogram of a waveform [C, S] as a PNG data URI, 80 bands up to 5.5 kHz, 70 dB."""
    waveform = _at_rate(np.nan_to_num(channels).mean(axis=0), sample_rate, PICTURE_RATE)
    spectrum = torch.stft(
        torch.from_numpy(waveform),
        FFT,
        HOP,
        window=torch.hann_window(FFT),
        return_complex=True,
        pad_mode="constant",
    )
    power = _mel_bands() @ spectrum.abs().square().double().numpy()
    decibel = 10.0 * np.log10(np.maximum(power, 1e-10))
    loudest = max(float(decibel.max()), QUIETEST_PEAK)  # silence stays dark
    shades = np.clip((decibel - loudest + DECIBELS) / DECIBELS, 0.0, 1.0) * (SHADES - 1)
    return _data_uri("image/png", _png(np.rint(shades[::-1]).astype(np.uint8)))


def _mel_bands() -> np.ndarray:
    """Returns triangular filters on the mel scale (HTK's formula), [bands, frequencies]."""
    low, high = (2595.0 * math.log10(1.0 + end / 700.0) for end in (LOWEST, HIGHEST))
    centres = 700.0 * (10.0 ** (np.linspace(low, high, BANDS + 2) / 2595.0) - 1.0)
    frequencies = np.linspace(0.0, PICTURE_RATE / 2, FFT // 2 + 1)
    rising = (frequencies - centres[:-2, None]) / np.diff(centres)[:-1, None]
    falling = (centres[2:, None] - frequencies) / np.diff(centres)[1:, None]
    return np.maximum(0.0, np.minimum(rising, falling))


def _png(shades: np.ndarray) -> bytes:
    """Returns an 8-bit picture of palette indices [H, W] as PNG."""
    height, width = shades.shape
    places = np.linspace(0, len(PALETTE) - 1, SHADES)
    colours = np.array(PALETTE).T
    palette = np.stack([np.interp(places, range(len(PALETTE)), one) for one in colours], axis=1)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), shades], axis=1)  # filter 0 before each row

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0))
        + chunk(b"PLTE", np.rint(palette).astype(np.uint8).tobytes())
        + chunk(b"IDAT", zlib.compress(rows.tobytes(), 9))
        + chunk(b"IEND", b"")
    )


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _at_rate(waveform: np.ndarray, sample_rate: int, target: int) -> np.ndarray:
    return resample(torch.from_numpy(waveform), sample_rate, target).numpy()
