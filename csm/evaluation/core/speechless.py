"""Silence and steady sound: such a clip is a failure with a reason in every metric, before any is computed.

Some metrics would otherwise reward it: a silent clip has the right length, no wrong pitch and no wrong pause,
and noise is audible from its first sample on.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from csm.evaluation.core.clips import Clip, ClipSet, ClipSets

SILENCE_DB = -60.0  # of full scale, without the constant part
FRAME = 0.01  # seconds
STEADY_DB = 6.0  # between the 5th and the 95th percentile of the levels: noise has 2 dB, speech over 20
SHORTEST_JUDGED = 20  # frames, for the percentiles


def frame_levels(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Computes the level in dB of full scale of each 10 ms frame [T] of a waveform [S]."""
    step = max(1, round(FRAME * sample_rate))
    frames = np.pad(waveform.astype(np.float64), (0, -len(waveform) % step)).reshape(-1, step)
    return 10.0 * np.log10(np.maximum((frames**2).mean(axis=1), 1e-12))


def is_silent(waveform: np.ndarray, sample_rate: int) -> bool:
    """Returns whether no 10 ms frame of a waveform [S] is above -60 dB once its mean is removed.

    A constant is silence: it makes no sound.
    """
    if not np.isfinite(waveform).all():
        return False  # audio that cannot be used has a reason of its own
    centred = waveform.astype(np.float64) - waveform.mean(dtype=np.float64)
    return bool(frame_levels(centred, sample_rate).max(initial=-np.inf) <= SILENCE_DB)


def is_steady(waveform: np.ndarray, sample_rate: int) -> bool:
    """Returns whether the level of a waveform [S] hardly varies: noise, hum or a tone, but no syllables."""
    levels = frame_levels(waveform, sample_rate)[:-1]  # the last frame may be padded
    if len(levels) < SHORTEST_JUDGED or not np.isfinite(waveform).all():
        return False
    low, high = np.percentile(levels, [5, 95])
    return bool(high - low < STEADY_DB)


def speechless_failed(sets: ClipSets) -> ClipSets:
    """Returns the sets with every silent or steady clip replaced by the reason why it has no speech."""
    return replace(sets, sets=tuple(_checked_set(one) for one in sets))


def _checked_set(clips: ClipSet) -> ClipSet:
    return replace(clips, clips=tuple(_checked(clip) for clip in clips.clips))


def _checked(clip: Clip) -> Clip:
    if clip.waveform is None or clip.waveform.shape[-1] == 0:
        return clip
    channels = np.atleast_2d(clip.waveform)
    for number, channel in enumerate(channels):
        name = "the audio" if len(channels) == 1 else f"channel {number}"
        if is_silent(channel, clip.sample_rate):
            return replace(clip, waveform=None, reason=f"{name} is silent")
        if is_steady(channel, clip.sample_rate):
            return replace(clip, waveform=None, reason=f"{name} is a steady sound, no speech")
    return clip
