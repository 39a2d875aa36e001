"""Clips of speech, and sets of clips by group and condition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch

from csm.audio.resampling import resample

EVALUATION_RATE = 16000  # Hz; every evaluator here was trained on 16 kHz speech
Kind = Literal["lines", "turns", "dialogues"]


@dataclass(frozen=True, kw_only=True)
class Clip:
    """One utterance, or the reason why it has no audio.

    Attributes:
        id: The clip's id, the same in every condition.
        conversation: Id of what the bootstrap resamples: the clip's conversation or dialogue.
        speaker: Name of the speaker.
        text: The words that were to be said.
        turn: Number of the turn in its conversation, from 0.
        waveform: Mono float32 [S]; [C, S] for a whole dialogue, one speaker a channel; None without audio.
        sample_rate: Rate of the waveform in Hz.
        reason: Why there is no audio.
        facts: What its generator recorded, for example its timing.
    """

    id: str
    conversation: str = ""
    speaker: str = ""
    text: str = ""
    turn: int = 0
    waveform: np.ndarray | None = None
    sample_rate: int = EVALUATION_RATE
    reason: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def duration(self) -> float:
        """Seconds of audio; 0 without audio."""
        return 0.0 if self.waveform is None else self.waveform.shape[-1] / self.sample_rate


@dataclass(frozen=True, kw_only=True, eq=False)
class ClipSet:
    """All clips of one group in one condition.

    Attributes:
        group: Name of the group of clips, for example "lines" or "main voice".
        condition: How the clips came about, for example "recording" or "generated".
        clips: The clips, in the same order in every condition of the group.
        kind: "lines" for independent clips, "turns" for whole dialogues turn after turn, "dialogues" for
            whole dialogues in one clip with a channel for each speaker.
        generated: Whether a model generated the speech.
    """

    group: str
    condition: str
    clips: tuple[Clip, ...]
    kind: Kind = "lines"
    generated: bool = False


@dataclass(frozen=True, kw_only=True)
class ClipSets:
    """All sets of an evaluation.

    Attributes:
        sets: The sets, the conditions of a group one after the other.
        reference: Condition that the others of its group are compared with.
    """

    sets: tuple[ClipSet, ...]
    reference: str = "recording"

    def __iter__(self) -> Iterator[ClipSet]:
        return iter(self.sets)

    def __len__(self) -> int:
        return len(self.sets)

    def of(self, group: str, condition: str) -> ClipSet | None:
        """Returns one set, None where it does not exist."""
        return next((one for one in self.sets if (one.group, one.condition) == (group, condition)), None)

    def recording_of(self, clips: ClipSet) -> ClipSet | None:
        """Returns the reference set of the same group."""
        return self.of(clips.group, self.reference)

    @property
    def mono(self) -> list[ClipSet]:
        """Sets whose clips are single utterances."""
        return [one for one in self.sets if one.kind != "dialogues"]

    @property
    def conditions(self) -> list[str]:
        """Names of the conditions, in order of first appearance."""
        return list(dict.fromkeys(one.condition for one in self.sets))


def mono(waveform: np.ndarray | torch.Tensor) -> np.ndarray:
    """Converts a waveform [S], [1, S] or [C, S] to finite float32 [S]; channels are averaged.

    Raises:
        ValueError: The waveform has no samples, more than two dimensions, or values that are not finite.
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


def at_rate(waveform: np.ndarray, sample_rate: int, target: int = EVALUATION_RATE) -> np.ndarray:
    """Converts a waveform to mono float32 [S] at `target` Hz."""
    array = mono(waveform)
    if sample_rate == target:
        return array
    return resample(torch.from_numpy(array), sample_rate, target).numpy()


def prepared(clip: Clip, sample_rate: int = EVALUATION_RATE) -> Clip:
    """Returns the clip at the evaluators' rate; audio that cannot be used becomes a reason."""
    if clip.waveform is None:
        return clip
    try:
        return replace(
            clip, waveform=at_rate(clip.waveform, clip.sample_rate, sample_rate), sample_rate=sample_rate
        )
    except ValueError as error:
        return replace(clip, waveform=None, reason=str(error))


def as_clips(items: Sequence[Clip | tuple[np.ndarray, int] | tuple[np.ndarray, int, str]]) -> list[Clip]:
    """Returns clips as they are, and `(waveform, sample_rate[, text])` tuples as clips numbered in order."""
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
