"""Speaker embeddings of short windows of speech, on the CPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from csm.data.corpora.transcription.speaker_models import speaker_weights
from csm.data.corpora.transcription.speaker_network import MELS, WIDTH, SpeakerNetwork
from csm.data.manifest import Segment
from csm.system.extras import missing_package

RATE = 16_000
FRAME_STEP = 0.01  # seconds
WINDOW, HOP = 160, 50  # frames: 1.6 s, and half a second
SHORTEST = 20  # frames; shorter speech has no embedding
BATCH = 16
# White noise is added this far below the speech. Speech of telephone band has nothing above 4 kHz, and the
# logarithm of nothing varies more than a voice does.
NOISE_DB = -30.0


class Windows(NamedTuple):
    """Windows of one recording: embeddings [N, C], (start, end) in seconds [N, 2], region [N]."""

    embeddings: np.ndarray
    spans: np.ndarray
    regions: np.ndarray


class SpeakerWindows:
    """Embeds windows by CAM++.

    Raises:
        ValueError: torchaudio is missing, or the weights are neither in the cache folder nor to be fetched.
    """

    def __init__(self) -> None:
        try:
            from torchaudio.compliance import kaldi
        except ImportError as error:
            raise ValueError(
                missing_package("torchaudio", "telling speakers of one channel apart")
            ) from error
        self._filter_bank = kaldi.fbank
        self._network = SpeakerNetwork().eval()
        self._network.load_state_dict(speaker_weights())

    def embed(self, regions: Sequence[Segment], clips: Iterator[np.ndarray]) -> Windows:
        """Embeds the windows of each region.

        Args:
            regions: Intervals of speech.
            clips: Waveform [S] of each of them at 16 kHz; one at a time is in memory.
        """
        embeddings, spans, owners = [np.zeros((0, WIDTH), np.float32)], [], []
        for index, (region, clip) in enumerate(zip(regions, clips, strict=True)):
            if np.abs(clip).max(initial=0) < 1e-5:
                continue
            frames = self._frames(torch.from_numpy(clip))
            if len(frames) < SHORTEST:
                continue
            starts = window_starts(len(frames), WINDOW, HOP)
            embeddings.append(self._embedded([frames[s : s + WINDOW] for s in starts]))
            for start in starts:
                end = region.start + (start + WINDOW) * FRAME_STEP
                spans.append((region.start + start * FRAME_STEP, min(region.end, end)))
            owners += [index] * len(starts)
        return Windows(np.concatenate(embeddings), np.array(spans).reshape(-1, 2), np.array(owners, int))

    def _frames(self, clip: Tensor) -> Float[Tensor, "T 80"]:
        """Returns the log mel frames of a waveform [S]."""
        noise = torch.randn(len(clip), generator=torch.Generator().manual_seed(0))
        noisy = clip + clip.std() * 10 ** (NOISE_DB / 20) * noise
        if len(clip) < round(0.025 * RATE):  # Kaldi's frame
            return torch.zeros(0, MELS)
        return self._filter_bank(
            noisy.unsqueeze(0), num_mel_bins=MELS, sample_frequency=float(RATE), dither=0.0
        )

    @torch.no_grad()
    def _embedded(self, windows: list[Tensor]) -> np.ndarray:
        batch = torch.stack([window - window.mean(0) for window in windows])
        parts = [self._network(batch[first : first + BATCH]) for first in range(0, len(batch), BATCH)]
        return torch.cat(parts).numpy()


def window_starts(frames: int, window: int, hop: int) -> list[int]:
    """Returns where windows begin, `hop` frames apart; the last one ends with the frames."""
    if frames <= window:
        return [0]
    starts = list(range(0, frames - window + 1, hop))
    return starts if starts[-1] == frames - window else [*starts, frames - window]
