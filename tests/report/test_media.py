"""Sound and pictures in the page are what was recorded."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pytest
import soundfile

from csm.report.media import BANDS, DECIBELS, HIGHEST, LOWEST, PALETTE, SHADES, outline, sound_of, spectrogram

RATE = 22050
TIME = np.arange(RATE) / RATE


def decoded(uri: str) -> bytes:
    return base64.b64decode(uri.partition(";base64,")[2])


def picture(uri: str) -> np.ndarray:
    """Palette indices [H, W] of a PNG without filters."""
    data = decoded(uri)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    chunks, at = {}, 8
    while at < len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        assert struct.unpack(">I", data[at + 8 + size : at + 12 + size]) == (zlib.crc32(kind + body),)
        chunks[kind], at = body, at + 12 + size
    width, height = struct.unpack(">II", chunks[b"IHDR"][:8])
    palette = np.frombuffer(chunks[b"PLTE"], np.uint8).reshape(-1, 3)
    assert len(palette) == SHADES and tuple(palette[0]) == PALETTE[0] and tuple(palette[-1]) == PALETTE[-1]
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, width + 1)
    assert not rows[:, 0].any()
    return rows[:, 1:]


def tone(hertz: float) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * TIME)).astype(np.float32)[None]


def test_lossless_sound_is_the_recording_to_16_bits():
    stereo = np.concatenate([tone(440), tone(660)])
    sound = sound_of(stereo, RATE, lossless=True)
    samples, rate = soundfile.read(io.BytesIO(decoded(sound.uri)), dtype="float32")
    assert sound.uri.startswith("data:audio/wav;") and sound.extension == "wav"
    assert rate == RATE and sound.duration == 1.0
    np.testing.assert_allclose(samples.T, stereo, atol=1 / 32768)


@pytest.mark.parametrize(("rate", "stored"), [(22050, 22050), (12345, 24000)])
def test_small_sound_is_mp3_at_a_rate_that_mp3_has(rate, stored):
    sound = sound_of(tone(440), rate, lossless=False)
    file = io.BytesIO(decoded(sound.uri))
    info = soundfile.info(file)
    assert sound.extension == "mp3" and info.format == "MP3" and info.samplerate == stored
    assert len(decoded(sound.uri)) < RATE


def test_sound_that_is_not_finite_or_too_loud_is_clipped():
    samples, _ = soundfile.read(
        io.BytesIO(decoded(sound_of(np.array([[np.nan, 3.0, -3.0]], np.float32), RATE, lossless=True).uri))
    )
    np.testing.assert_allclose(samples, [0.0, 1.0, -1.0], atol=1 / 16384)


def test_the_outline_is_high_where_the_sound_is_loud():
    quiet = np.zeros((1, 900), np.float32)
    quiet[0, 450:] = 1.0
    strokes = outline(quiet).split("M")[1:]
    lengths = [float(stroke.partition("v")[2]) for stroke in strokes]
    assert len(lengths) == 90 and max(lengths[:45]) < 2 < 18 < min(lengths[45:]) <= 20


@pytest.mark.parametrize("hertz", [300.0, 1000.0, 4000.0])
def test_a_tone_is_brightest_in_its_mel_band(hertz):
    def mel(frequency: float) -> float:
        return 2595 * np.log10(1 + frequency / 700)

    shades = picture(spectrogram(tone(hertz), RATE))
    assert shades.shape[0] == BANDS
    middle = shades[:, shades.shape[1] // 2]
    expected = (mel(hertz) - mel(LOWEST)) / (mel(HIGHEST) - mel(LOWEST)) * (BANDS + 1) - 1
    assert abs(BANDS - 1 - int(middle.argmax()) - expected) <= 1.5 and middle.max() == SHADES - 1


def test_a_picture_has_70_decibels_and_silence_is_dark():
    faint = tone(1000)
    faint[0, RATE // 2 :] *= 10 ** (-35 / 20)
    shades = picture(spectrogram(faint, RATE)).max(axis=0).astype(float)
    quarter = len(shades) // 4
    drop = (shades[quarter] - shades[3 * quarter]) / (SHADES - 1) * DECIBELS
    assert abs(drop - 35) < 1.5
    assert picture(spectrogram(np.zeros((1, RATE), np.float32), RATE)).max() == 0
