"""Pitch, voicing and energy of each codec frame.

Pitch follows P. Boersma, "Accurate short-term analysis of the fundamental frequency and the
harmonics-to-noise ratio of a sampled sound" (1993), the method of Praat: the autocorrelation of
Hann-windowed segments is divided by that of the window, its highest peaks become candidates, and a Viterbi
path through them penalises octave jumps and changes of voicing. torchaudio's detect_pitch_frequency is not
used: its 10 ms windows and whole-sample lags are too coarse for speech at 11,025 Hz, and it makes no voicing
decision.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

PROSODY_STATISTICS = (
    "mean_log_f0",
    "std_log_f0",
    "voiced_share",
    "mean_log_energy",
    "std_log_energy",
    "log_duration",
)
LOWEST_HZ = 60.0
HIGHEST_HZ = 600.0
LOG_ENERGY_FLOOR = math.log(1e-4)  # -9.21: -80 dBFS, below the noise floor of every recording

# Boersma's values, as in Praat ("voicing threshold", "silence threshold", "octave cost", ...).
_VOICING_THRESHOLD = 0.45
_SILENCE_THRESHOLD = 0.03
_OCTAVE_COST = 0.01
_OCTAVE_JUMP_COST = 0.35
_VOICING_CHANGE_COST = 0.14
_COST_STEP_S = 0.01  # step of the two costs above
_CANDIDATES = 6
_STEPS_PER_FRAME = 4  # at 12.5 frames per second one pitch every 20 ms
_LOWEST_PEAK = 1e-3  # -60 dBFS: quieter segments are never voiced
_CHUNK = 4096  # windows analysed at once: bounds the memory for long recordings


def frame_prosody(waveform: Tensor, sample_rate: int, *, frame_rate: float = 12.5) -> Tensor:
    """Computes pitch, voicing and energy of each codec frame.

    Args:
        waveform: Waveform [1, S], full scale = 1.
        sample_rate: Sample rate in Hz.
        frame_rate: Frames per second; a frame has round(sample_rate / frame_rate) samples.

    Returns:
        float32 [T, 3] on the CPU, T = ceil(S / samples_per_frame): log-F0 in log(Hz), the median of the
        frame's voiced steps, 0 where unvoiced; voicing, 1 where at least half of the frame's steps are
        voiced, else 0; energy, the natural log of the RMS, at least -9.21.

    Raises:
        ValueError: The waveform has another shape or no samples, or a rate is out of range.
    """
    if waveform.ndim != 2 or waveform.shape[0] != 1 or waveform.shape[1] == 0:
        raise ValueError(
            f"waveform has shape {tuple(waveform.shape)}: expected [1, S] with S > 0; reshape it"
        )
    if sample_rate < 4000 or frame_rate <= 0:
        raise ValueError(
            f"sample_rate is {sample_rate}, frame_rate is {frame_rate}: expected at least 4000 Hz and a rate "
            f"above 0; resample the waveform"
        )
    samples = waveform[0].detach().to("cpu", torch.float32)
    size = round(sample_rate / frame_rate)
    count = math.ceil(len(samples) / size)
    centres = (np.arange(count * _STEPS_PER_FRAME) + 0.5) * size / _STEPS_PER_FRAME
    f0 = pitch_track(samples, sample_rate, torch.from_numpy(centres.astype(np.int64)))
    steps = torch.from_numpy(f0).view(count, _STEPS_PER_FRAME)
    voiced = (steps > 0).sum(1) >= _STEPS_PER_FRAME // 2
    median = torch.where(steps > 0, steps.clamp_min(1e-6).log(), torch.nan).nanmedian(1).values
    return torch.stack(
        [torch.where(voiced, median, 0.0).float(), voiced.float(), _log_energy(samples, size)], 1
    )


def prosody_statistics(frames: Tensor, *, frame_rate: float = 12.5) -> Tensor:
    """Summarises the prosody of an utterance in six numbers, named by PROSODY_STATISTICS.

    Args:
        frames: Prosody [T, 3] of `frame_prosody`.
        frame_rate: Frames per second.

    Returns:
        float32 [6]: mean and standard deviation of log-F0 over voiced frames (0 if there are none), share of
        voiced frames, mean and standard deviation of log-energy, log of the duration in seconds.

    Raises:
        ValueError: `frames` has another shape or no frames.
    """
    if frames.ndim != 2 or frames.shape[1] != 3 or frames.shape[0] == 0:
        raise ValueError(
            f"frames has shape {tuple(frames.shape)}: expected [T, 3] with T > 0; use `frame_prosody`"
        )
    voiced = frames[frames[:, 1] > 0, 0]
    pitch = (voiced.mean(), voiced.std(correction=0)) if len(voiced) else (frames.new_zeros(()),) * 2
    energy = frames[:, 2]
    duration = frames.new_tensor(math.log(len(frames) / frame_rate))
    return torch.stack(
        [*pitch, frames[:, 1].mean(), energy.mean(), energy.std(correction=0), duration]
    ).float()


def pitch_track(samples: Tensor, sample_rate: int, centres: Tensor) -> np.ndarray:
    """Computes F0 at given times.

    Args:
        samples: Waveform float32 [S].
        sample_rate: Sample rate in Hz.
        centres: Sample indices int64 [P] in equal steps.

    Returns:
        F0 in Hz, float64 [P], 0 where unvoiced.
    """
    peak = float((samples - samples.mean()).abs().max())
    if peak < _LOWEST_PEAK or len(centres) == 0:
        return np.zeros(len(centres))
    size = round(3 * sample_rate / LOWEST_HZ)  # three periods of the lowest pitch, as in Boersma
    padding = (size, size + max(0, int(centres[-1]) - len(samples)))
    around = torch.nn.functional.pad(samples, padding).unfold(0, size, 1)  # a view: one segment per sample
    starts = centres - size // 2 + size
    parts = [_candidates(around[part], sample_rate, peak) for part in starts.split(_CHUNK)]
    frequency, strength = (np.concatenate(values) for values in zip(*parts, strict=True))
    step = float(centres[1] - centres[0]) / sample_rate if len(centres) > 1 else _COST_STEP_S
    return _best_path(frequency, strength, _COST_STEP_S / step)


def _candidates(segments: Tensor, sample_rate: int, peak: float) -> tuple[np.ndarray, np.ndarray]:
    """Returns frequencies (Hz) and strengths [P, 1 + candidates] of segments [P, size], unvoiced first."""
    size = segments.shape[1]
    segments = segments - segments.mean(1, keepdim=True)
    window = torch.hann_window(size, periodic=False)
    shortest, longest = max(2, int(sample_rate / HIGHEST_HZ)), math.ceil(sample_rate / LOWEST_HZ)
    correlation = _autocorrelation(segments * window, longest + 2) / _autocorrelation(
        window[None], longest + 2
    )
    inner = correlation[:, shortest : longest + 1]
    before, after = correlation[:, shortest - 1 : longest], correlation[:, shortest + 1 : longest + 2]
    # A parabola through a peak and its two neighbours gives lags between samples.
    curve = (2 * inner - before - after).clamp_min(1e-9)
    shift = (0.5 * (after - before) / curve).clamp(-0.5, 0.5)
    frequency = sample_rate / (torch.arange(shortest, longest + 1) + shift)
    strength = (inner + 0.25 * (after - before) * shift).clamp_max(1.0) - _OCTAVE_COST * (
        LOWEST_HZ / frequency
    ).log2()
    is_peak = (inner >= before) & (inner > after) & (inner > 0.5 * _VOICING_THRESHOLD)
    strength, index = torch.where(is_peak, strength, -torch.inf).topk(_CANDIDATES, dim=1)
    local = segments[:, size // 3 : size - size // 3].abs().amax(1)
    quiet = 2 - (local / peak) / (_SILENCE_THRESHOLD / (1 + _VOICING_THRESHOLD))
    unvoiced = _VOICING_THRESHOLD + quiet.clamp_min(0)
    unvoiced = torch.where(local < _LOWEST_PEAK, 1e3, unvoiced)[:, None]
    frequency = torch.cat([torch.zeros_like(unvoiced), frequency.gather(1, index)], 1)
    return frequency.double().numpy(), torch.cat([unvoiced, strength], 1).double().numpy()


def _autocorrelation(segments: Tensor, lags: int) -> Tensor:
    """Returns the normalised autocorrelation [P, lags] of segments [P, size], 1 at lag 0."""
    length = 1 << (segments.shape[1] + lags - 1).bit_length()
    power = torch.fft.rfft(segments, length).abs().square()
    correlation = torch.fft.irfft(power, length)[:, :lags]
    return correlation / correlation[:, :1].clamp_min(1e-12)


def _best_path(frequency: np.ndarray, strength: np.ndarray, cost_scale: float) -> np.ndarray:
    """Returns the frequencies [P] on the Viterbi path through the candidates [P, C], 0 where unvoiced."""
    with np.errstate(divide="ignore"):
        octave = np.where(frequency > 0, np.log2(np.maximum(frequency, 1e-9)), 0.0)
    voiced = frequency > 0
    jump, change = _OCTAVE_JUMP_COST * cost_scale, _VOICING_CHANGE_COST * cost_scale
    cost = jump * np.abs(octave[1:, None, :] - octave[:-1, :, None])
    both = voiced[1:, None, :] & voiced[:-1, :, None]
    cost = np.where(both, cost, change * (voiced[1:, None, :] != voiced[:-1, :, None]))
    score = strength[0]
    columns = np.arange(frequency.shape[1])
    came_from = np.zeros(frequency.shape, np.int64)
    for step in range(1, len(frequency)):
        options = score[:, None] - cost[step - 1]
        came_from[step] = best = options.argmax(0)
        score = options[best, columns] + strength[step]
    path = np.zeros(len(frequency), np.int64)
    path[-1] = int(score.argmax())
    for step in range(len(frequency) - 1, 0, -1):
        path[step - 1] = came_from[step, path[step]]
    return frequency[np.arange(len(frequency)), path]


def _log_energy(samples: Tensor, size: int) -> Tensor:
    count = math.ceil(len(samples) / size)
    squares = torch.nn.functional.pad(samples.double().square(), (0, count * size - len(samples)))
    lengths = torch.full((count,), size, dtype=torch.float64)
    lengths[-1] = len(samples) - (count - 1) * size
    power = squares.view(count, size).sum(1) / lengths
    return power.sqrt().clamp_min(math.exp(LOG_ENERGY_FLOOR)).log().float()
