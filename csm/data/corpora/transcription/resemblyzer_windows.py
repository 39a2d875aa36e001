"""Speaker embeddings of short windows of speech by Resemblyzer (GE2E, Wan et al. 2018), on the CPU."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from csm.data.corpora.transcription.speaker_windows import Windows, window_starts
from csm.data.manifest import Segment
from csm.system.extras import missing_package

MEL_STEP = 0.01  # seconds a mel frame of Resemblyzer
WINDOW, HOP = 160, 25  # mel frames: what the network was trained on, and a quarter of a second
SHORTEST = 10  # mel frames; shorter speech has no embedding
BATCH = 64
LOUDNESS_DB = -30


class ResemblyzerWindows:
    """Embeds windows.

    Raises:
        ValueError: Resemblyzer is missing.
    """

    def __init__(self) -> None:
        try:
            with package_resources():
                library = importlib.import_module("resemblyzer")
                self._audio: Any = importlib.import_module("resemblyzer.audio")
        except ImportError as error:
            raise ValueError(
                missing_package("Resemblyzer", "telling speakers of one channel apart")
            ) from error
        self._encoder: Any = library.VoiceEncoder("cpu", verbose=False)

    def embed(self, regions: Sequence[Segment], clips: Iterator[np.ndarray]) -> Windows:
        """Embeds the windows of each region.

        Args:
            regions: Intervals of speech.
            clips: Waveform [S] of each of them at 16 kHz; one at a time is in memory.
        """
        embeddings, spans, owners = [np.zeros((0, 256), np.float32)], [], []
        for index, (region, clip) in enumerate(zip(regions, clips, strict=True)):
            if np.abs(clip).max(initial=0) < 1e-5:
                continue
            loud = self._audio.normalize_volume(clip, LOUDNESS_DB, increase_only=False)
            mels = self._audio.wav_to_mel_spectrogram(loud)
            if len(mels) < SHORTEST:
                continue
            starts = window_starts(len(mels), WINDOW, HOP)
            if len(mels) < WINDOW:
                mels = np.tile(mels, (WINDOW // len(mels) + 1, 1))
            embeddings.append(self._forward([mels[s : s + WINDOW] for s in starts]))
            ends = [min(region.end, region.start + (s + WINDOW) * MEL_STEP) for s in starts]
            spans += [(region.start + s * MEL_STEP, end) for s, end in zip(starts, ends, strict=True)]
            owners += [index] * len(starts)
        return Windows(np.concatenate(embeddings), np.array(spans).reshape(-1, 2), np.array(owners, int))

    @torch.no_grad()
    def _forward(self, windows: list[np.ndarray]) -> np.ndarray:
        parts = [
            self._encoder(torch.from_numpy(np.stack(windows[first : first + BATCH])))
            for first in range(0, len(windows), BATCH)
        ]
        return torch.cat(parts).numpy()


@contextlib.contextmanager
def package_resources() -> Iterator[None]:
    """Lets webrtcvad 2.0.10 import beside a setuptools that no longer brings pkg_resources.

    It uses pkg_resources only to read its own version; importlib.metadata returns that.
    """
    if importlib.util.find_spec("pkg_resources") is not None:
        yield
        return
    stand_in: Any = types.ModuleType("pkg_resources")
    stand_in.get_distribution = importlib.metadata.distribution
    sys.modules["pkg_resources"] = stand_in
    try:
        yield
    finally:
        del sys.modules["pkg_resources"]
