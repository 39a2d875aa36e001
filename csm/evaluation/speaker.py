"""Is it the right voice, and does it stay the same? Speaker embeddings by Resemblyzer."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import sys
import types
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from csm.evaluation.judge import (
    JUDGE_SAMPLE_RATE,
    Clip,
    as_clips,
    judge_each,
    optional_import,
    package_version,
)
from csm.evaluation.statistics import MetricInfo, Score, bootstrap_repeats, interval, seed_for

SHORTEST_RELIABLE = 1.6  # seconds: the window of the embedding network; weak below
PARTIALS_PER_SECOND = 1.3  # Resemblyzer's default


@contextlib.contextmanager
def _package_resources() -> Iterator[None]:
    """Lets webrtcvad 2.0.10 import beside a setuptools that no longer brings pkg_resources.

    It asks pkg_resources for its own version and for nothing else; importlib.metadata answers.
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


class SpeakerEncoder:
    """Resemblyzer (GE2E, Wan et al. 2018; weights inside the package), on the CPU.

    Equal error rate 7.7 % on 14 roles of the quickstart corpus at a threshold of 0.80.

    Raises:
        JudgeUnavailable: Resemblyzer or webrtcvad, which it needs, is missing.
    """

    def __init__(self) -> None:
        with _package_resources():
            self._library = optional_import("resemblyzer", package="Resemblyzer", metric="speaker similarity")
        self._encoder: Any = self._library.VoiceEncoder("cpu", verbose=False)
        self.evaluator = f"Resemblyzer {package_version('Resemblyzer')}"

    def embed(self, waveform: np.ndarray) -> np.ndarray:
        """Unit-length embedding [256] of mono 16 kHz ``waveform`` [S].

        Silence is trimmed by the package's own rule; where that leaves less than 0.2 s (its voice
        detector may reject strange speech altogether) the untrimmed clip is embedded.

        Raises:
            ValueError: the clip is silent.
        """
        if not np.abs(waveform).max() > 1e-5:
            raise ValueError("the audio is silent")
        trimmed = self._library.preprocess_wav(waveform)
        if len(trimmed) < 0.2 * JUDGE_SAMPLE_RATE:
            trimmed = self._library.normalize_volume(waveform, -30, increase_only=True)
        return self._encoder.embed_utterance(trimmed, rate=PARTIALS_PER_SECOND)


@dataclass(frozen=True, kw_only=True)
class Voices:
    """Mean reference embedding of each speaker: ``names`` [N] and unit ``means`` [N, 256]."""

    names: tuple[str, ...]
    means: np.ndarray

    def cosines(self, embedding: np.ndarray) -> np.ndarray:
        """Cosine of a unit embedding to every speaker's mean, [N]."""
        return self.means @ embedding

    def index(self, speaker: str) -> int:
        """Position of a speaker.

        Raises:
            ValueError: no reference recordings of that speaker.
        """
        if speaker not in self.names:
            raise ValueError(f"no reference recordings of {speaker} in the train split")
        return self.names.index(speaker)


def mean_voices(encoder: SpeakerEncoder, references: Mapping[str, Sequence[np.ndarray]]) -> Voices:
    """Mean voice of each speaker from 16 kHz reference recordings; silent ones are passed over."""
    names, means = [], []
    for name in sorted(references):
        embeddings = [encoder.embed(wave) for wave in references[name] if np.abs(wave).max() > 1e-5]
        if embeddings:
            mean = np.mean(embeddings, axis=0)
            names.append(name)
            means.append(mean / np.linalg.norm(mean))
    return Voices(names=tuple(names), means=np.array(means).reshape(len(names), -1))


def embed_all(encoder: SpeakerEncoder, items: Sequence[Clip | tuple]) -> tuple[list[Score], list[np.ndarray]]:
    """Embeddings of the clips that could be embedded, and a score (0, or a failure) for every clip."""
    embeddings: list[np.ndarray] = []

    def measure(clip: Clip) -> float:
        assert clip.waveform is not None
        embeddings.append(encoder.embed(clip.waveform))
        return 0.0

    return judge_each(as_clips(items), measure), embeddings


def similarity_scores(
    clips: Sequence[Clip], outcomes: Sequence[Score], embeddings: Sequence[np.ndarray], voices: Voices
) -> dict[str, list[Score]]:
    """Cosine to the own voice, margin over the nearest other voice, and whether the own is nearest.

    Args:
        clips: what was to be spoken, with ``speaker``.
        outcomes, embeddings: the answer of :func:`embed_all` for the same clips.
        voices: all speakers' mean voices.

    Returns:
        ``speaker_similarity``, ``speaker_margin``, ``speaker_nearest_is_own``, a score a clip each.
    """
    result: dict[str, list[Score]] = {
        "speaker_similarity": [],
        "speaker_margin": [],
        "speaker_nearest_is_own": [],
    }
    remaining = iter(embeddings)
    for clip, outcome in zip(clips, outcomes, strict=True):
        values: tuple[float, float, float] | None = None
        reason, detail = outcome.reason or "", None
        if outcome.value is not None:
            cosines = voices.cosines(next(remaining))
            try:
                own = voices.index(clip.speaker)
                others = np.delete(cosines, own)
                margin = float(cosines[own] - others.max()) if others.size else float("nan")
                values = (float(cosines[own]), margin, float(int(cosines.argmax()) == own))
                detail = voices.names[int(cosines.argmax())]
            except ValueError as error:
                reason = str(error)
        for name, value in zip(result, values or (None, None, None), strict=True):
            if value is not None and not np.isfinite(value):
                value, reason = None, "only one speaker has reference recordings"
            result[name].append(
                Score(
                    clip=clip.id,
                    conversation=clip.conversation,
                    value=value,
                    reason=None if value is not None else reason,
                    detail=detail if value is not None else None,
                )
            )
    return result


@dataclass(frozen=True, kw_only=True)
class Drift:
    """Slope of similarity over the turns of voices: per turn, with its 95 % interval.

    ``voices`` counts the (dialogue, speaker) pairs with at least two turns.
    """

    slope: float
    ci95: list[float] | None
    turns: int
    voices: int


def drift(
    series: Sequence[Sequence[tuple[float, float]]], *, repeats: int = 1000, seed: int = 0
) -> Drift | None:
    """Does a voice move away from itself? Common slope of several voices, each with its own level.

    Least squares on (turn number, similarity) after removing each voice's mean of both; the interval
    is a bootstrap of turns inside each voice, which leaves the number of turns of a voice as it is.

    Args:
        series: for each voice of each dialogue its ``(turn, similarity)`` pairs.

    Returns:
        ``None`` where no voice has two turns.
    """
    voices = [np.array(points, dtype=np.float64) for points in series if len(points) >= 2]
    slope = _common_slope(voices)
    if slope is None:
        return None
    generator = np.random.default_rng(seed_for(seed, "drift"))

    def resampled(_: list[int]) -> float | None:
        return _common_slope([voice[generator.integers(0, len(voice), len(voice))] for voice in voices])

    draws = bootstrap_repeats([0], resampled, repeats=repeats, seed=seed)
    enough = sum(len(voice) for voice in voices) - len(voices) >= 3
    return Drift(
        slope=slope,
        ci95=interval(draws) if enough else None,
        turns=sum(len(voice) for voice in voices),
        voices=len(voices),
    )


def _common_slope(voices: Sequence[np.ndarray]) -> float | None:
    centred = [voice - voice.mean(axis=0) for voice in voices]
    below = sum(float((voice[:, 0] ** 2).sum()) for voice in centred)
    above = sum(float((voice[:, 0] * voice[:, 1]).sum()) for voice in centred)
    return above / below if below > 0 else None


def speaker_metrics(evaluator: str, speakers: int) -> dict[str, MetricInfo]:
    """Similarity to the own voice, margin, nearest voice, and consistency over turns."""
    shared: dict[str, Any] = {"area": "speaker", "evaluator": evaluator, "sample_rate": JUDGE_SAMPLE_RATE}
    against = "mean embedding of the speaker's recordings in the train split"
    return {
        "speaker_similarity": MetricInfo(
            name="speaker_similarity",
            title="Speaker similarity",
            unit="cosine, 0 to 1",
            direction="higher",
            worst=0.0,
            definition=f"cosine of the clip's embedding and the {against}; weak under 1.6 s",
            **shared,
        ),
        "speaker_margin": MetricInfo(
            name="speaker_margin",
            title="Margin over the nearest other voice",
            unit="cosine difference",
            direction="higher",
            worst=-1.0,
            definition=f"similarity to the own voice minus the best of the other {speakers - 1} voices",
            **shared,
        ),
        "speaker_nearest_is_own": MetricInfo(
            name="speaker_nearest_is_own",
            title="Nearest voice is the own",
            unit="share of clips",
            direction="higher",
            worst=0.0,
            definition=f"the nearest of {speakers} mean voices is the speaker's",
            **shared,
        ),
        "character_similarity": MetricInfo(
            name="character_similarity",
            title="Character over turns",
            unit="cosine, 0 to 1",
            direction="higher",
            worst=0.0,
            definition="similarity to the own mean voice, turn by turn of a dialogue; only turns whose "
            f"recording lasts {SHORTEST_RELIABLE} s; clips shorter than that fail",
            **shared,
        ),
    }
