"""How many people speak at each moment of one channel."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from csm.data.corpora.transcription.activity_network import (
    CLASSES,
    FIRST,
    RATE,
    STEP,
    WINDOW,
    ActivityNetwork,
)
from csm.data.corpora.transcription.speaker_models import activity_weights
from csm.data.manifest import Segment

HOP_S, WINDOW_S = 5.0, WINDOW / RATE
#: Probability of two people above which a frame is overlap, and the shortest overlap in seconds.
OVERLAP, SHORTEST_OVERLAP = 0.6, 0.3


class Activity(NamedTuple):
    """Probabilities of no speaker and of two speakers, each [T]; frame t at (270 t + 495) / 16000 s."""

    no_speaker: np.ndarray
    two_speakers: np.ndarray

    def mean_no_speaker(self, start: float, end: float) -> float:
        """Returns the mean probability of no speaker from one second to another."""
        first = max(round((start * RATE - FIRST) / STEP), 0)
        last = max(round((end * RATE - FIRST) / STEP), first + 1)
        return float(self.no_speaker[first:last].mean())

    def overlaps(self) -> list[tuple[float, float]]:
        """Returns where two people speak, (start, end) in seconds in order."""
        marked = np.concatenate([[False], self.two_speakers > OVERLAP, [False]])
        edges = np.flatnonzero(marked[1:] != marked[:-1]).reshape(-1, 2)
        times = (edges * STEP + FIRST - STEP / 2) / RATE
        return [(float(start), float(end)) for start, end in times if end - start >= SHORTEST_OVERLAP]


class ActivityDetector:
    """Detects activity by segmentation-3.0 of pyannote.audio, in windows of ten seconds, two at each moment.

    Raises:
        ValueError: The weights are neither in the cache folder nor to be fetched.
    """

    def __init__(self) -> None:
        self._network = ActivityNetwork(activity_weights())

    def __call__(self, regions: Sequence[Segment], read: Callable[[float, float], np.ndarray]) -> Activity:
        """Returns the activity of a recording; where there is no region of speech it is 0.

        Args:
            regions: Intervals of speech, at least one.
            read: Reads the waveform [S] at 16 kHz from one second to another; ten seconds are in memory.
        """
        length = max(region.end for region in regions)
        people = np.array([len(spoken) for spoken in CLASSES])
        frames = int((length + 2 * WINDOW_S) * RATE / STEP)
        total, weights = np.zeros((frames, 2), np.float32), np.full((frames, 1), 1e-9, np.float32)
        starts = np.arange(0.0, max(length - WINDOW_S, 0.0) + HOP_S, HOP_S)
        heard = np.zeros(len(starts), bool)
        for region in regions:
            first = math.floor((region.start - WINDOW_S) / HOP_S) + 1
            heard[max(0, first) : math.ceil(region.end / HOP_S)] = True
        for start in starts[heard]:
            clip = np.zeros(WINDOW, np.float32)
            found = read(start, min(start + WINDOW_S, length))[:WINDOW]
            clip[: len(found)] = found
            shares = self._network(torch.from_numpy(clip).unsqueeze(0))[0].exp().numpy()
            # The network sees less of what is around a frame at a window's edge.
            trust = np.hanning(len(shares) + 2)[1:-1, None] + 1e-3
            first = round(start * RATE / STEP)
            part = slice(first, first + len(shares))
            total[part] += trust * np.stack([shares[:, people == n].sum(1) for n in (0, 2)], axis=1)
            weights[part] += trust
        return Activity(*(total / weights).T)
