"""Sound and pictures that travel inside the page: encoded audio, waveforms, spectrograms."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
import soundfile
import torch
import torchaudio

from csm.data.resampling import resample

PAGE_AUDIO_BYTES = 9_000_000  # of FLAC; base64 adds a third, and the page should stay under 15 MB
MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)


@dataclass(frozen=True, kw_only=True)
class Sound:
    """One playable file: a data URI, its length in seconds and the outline of its waveform."""

    uri: str
    duration: float
    outline: str


def sound_of(channels: np.ndarray, sample_rate: int, *, lossless: bool) -> Sound:
    """A waveform [C, S] as FLAC, or as MP3 where space counts."""
    channels = np.clip(np.nan_to_num(channels), -1.0, 1.0)
    buffer = io.BytesIO()
    kind = "flac" if lossless else "mpeg"
    if lossless:
        soundfile.write(buffer, channels.T, sample_rate, format="FLAC", subtype="PCM_16")
    else:
        rate = sample_rate if sample_rate in MP3_RATES else 24000
        samples = np.stack([_at_rate(channel, sample_rate, rate) for channel in channels])
        soundfile.write(buffer, samples.T, rate, format="MP3")
    return Sound(
        uri=f"data:audio/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}",
        duration=channels.shape[1] / sample_rate,
        outline=outline(channels),
    )


def outline(channels: np.ndarray, bars: int = 90) -> str:
    """SVG path of a waveform [C, S] in a box of ``bars`` x 20: one stroke a bar, symmetric."""
    loudest = np.abs(channels).max(axis=0)
    parts = np.array_split(loudest, min(bars, len(loudest)))
    peaks = np.array([np.sqrt((part.astype(np.float64) ** 2).mean()) for part in parts])
    heights = 0.6 + 8.9 * np.sqrt(peaks / max(float(peaks.max()), 1e-6))
    return "".join(f"M{place}.5 {10 - high:.1f}v{2 * high:.1f}" for place, high in enumerate(heights))


def spectrogram(channels: np.ndarray, sample_rate: int) -> str:
    """Mel spectrogram of a waveform [C, S] as a PNG data URI: 70 dB, 80 bands up to 5.5 kHz.

    Raises:
        ImportError: matplotlib is missing.
    """
    from matplotlib import colormaps
    from matplotlib.image import imsave

    waveform = _at_rate(np.nan_to_num(channels).mean(axis=0), sample_rate, 11025)
    transform = torchaudio.transforms.MelSpectrogram(
        sample_rate=11025, n_fft=512, hop_length=110, n_mels=80, f_min=40.0, f_max=5500.0
    )
    decibel = 10.0 * torch.log10(transform(torch.from_numpy(waveform)).clamp(min=1e-10))
    loudest = decibel.max().clamp(min=-40.0)  # silence stays black
    shown = ((decibel - loudest + 70.0) / 70.0).clamp(0, 1).flip(0).numpy()
    palette = (colormaps["magma"](shown)[..., :3] * 255).astype(np.uint8)
    buffer = io.BytesIO()
    imsave(buffer, palette, format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _at_rate(waveform: np.ndarray, sample_rate: int, target: int) -> np.ndarray:
    """Returns the waveform [S] resampled to `target` Hz."""
    return resample(torch.from_numpy(waveform), sample_rate, target).numpy()
