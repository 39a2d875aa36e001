"""What every judge needs: audio as it wants it, its version, and a clear word when it is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import ModuleType

import numpy as np
import torch
import torchaudio

from csm.evaluation.statistics import Score, failed, judged
from csm.system.extras import missing_package

JUDGE_SAMPLE_RATE = 16000  # every judge here was trained on 16 kHz speech


class JudgeUnavailable(ImportError):
    """A judge's package or weights are not installed; the message names the extra."""


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One utterance to judge: mono float32 ``waveform`` [S], or the reason why there is none."""

    id: str
    conversation: str = ""
    speaker: str = ""
    text: str = ""
    waveform: np.ndarray | None = None
    sample_rate: int = JUDGE_SAMPLE_RATE
    reason: str | None = None

    @property
    def duration(self) -> float:
        """Seconds of audio; 0 where there is none."""
        return 0.0 if self.waveform is None else len(self.waveform) / self.sample_rate


def optional_import(module: str, *, package: str, metric: str) -> ModuleType:
    """Import a judge's module.

    Raises:
        JudgeUnavailable: the package cannot be imported; names the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise JudgeUnavailable(
            f"{missing_package(package, metric)} ({type(error).__name__}: {error})"
        ) from error


def package_version(package: str) -> str:
    """The installed version of a distribution, for the report."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown version"


def mono(waveform: np.ndarray | torch.Tensor) -> np.ndarray:
    """Waveform [S], [1, S] or [C, S] as finite float32 [S] (channels are averaged).

    Raises:
        ValueError: no samples, more than two dimensions, or values that are not numbers.
    """
    array = np.asarray(waveform, dtype=np.float32)
    if array.ndim == 2:
        array = array.mean(axis=0)
    if array.ndim != 1:
        raise ValueError(f"waveform has shape {array.shape}; expected [samples] or [channels, samples]")
    if array.size == 0:
        raise ValueError("the audio is empty")
    if not np.isfinite(array).all():
        raise ValueError("the audio holds values that are not numbers")
    return array


def at_rate(waveform: np.ndarray, sample_rate: int, target: int = JUDGE_SAMPLE_RATE) -> np.ndarray:
    """Mono float32 [S] resampled to ``target`` Hz."""
    array = mono(waveform)
    if sample_rate == target:
        return array
    return torchaudio.functional.resample(torch.from_numpy(array), sample_rate, target).numpy()


def as_clips(items: Sequence[Clip | tuple[np.ndarray, int] | tuple[np.ndarray, int, str]]) -> list[Clip]:
    """Clips, or plain ``(waveform, sample_rate[, text])`` tuples numbered in order."""
    clips = []
    for number, item in enumerate(items):
        if isinstance(item, Clip):
            clips.append(item)
            continue
        name = f"clip_{number:04d}"
        clips.append(
            Clip(
                id=name,
                conversation=name,
                waveform=np.asarray(item[0]),
                sample_rate=item[1],
                text=item[2] if len(item) > 2 else "",
            )
        )
    return clips


def prepared(clip: Clip, sample_rate: int = JUDGE_SAMPLE_RATE) -> Clip:
    """The clip at the judges' rate; audio that cannot be used becomes a reason."""
    if clip.waveform is None:
        return clip
    try:
        return replace(
            clip, waveform=at_rate(clip.waveform, clip.sample_rate, sample_rate), sample_rate=sample_rate
        )
    except ValueError as error:
        return replace(clip, waveform=None, reason=str(error))


def judge_each(
    clips: Sequence[Clip],
    measure: Callable[[Clip], float | tuple[float, str]],
    *,
    weight: Callable[[Clip], float] | None = None,
) -> list[Score]:
    """``measure`` of every clip at the judges' rate; what raises is a failure with its reason.

    An exception of a judge is never turned into a score: it is counted.
    """
    scores = []
    for item in clips:
        clip = prepared(item)
        size = 1.0 if weight is None else weight(clip)
        if clip.waveform is None:
            scores.append(failed(clip.id, clip.conversation, clip.reason or "no audio", weight=size))
            continue
        try:
            outcome = measure(clip)
        except JudgeUnavailable:
            raise  # the metric is missing for all clips, which is not a fault of this clip
        except Exception as error:  # counted with its reason, never scored
            reason = f"{type(error).__name__}: {error}"
            scores.append(failed(clip.id, clip.conversation, reason, weight=size))
            continue
        value, detail = outcome if isinstance(outcome, tuple) else (outcome, None)
        scores.append(judged(clip.id, clip.conversation, value, weight=size, detail=detail))
    return scores
