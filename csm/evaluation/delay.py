"""How late a codec's output is, and the output put back in step with what went in."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LONGEST_DELAY = 0.1  # seconds; twice what a 40 ms speech frame and its filters can hold back
SURE = 0.002  # seconds; tokenizers that are in time are put up to 0.6 ms beside it by their envelope's errors
_WINDOW = 0.02  # seconds; of the loudness envelope: longer than a pitch period of 50 Hz, shorter than a phone


def common_delay(pairs: Sequence[tuple[np.ndarray, np.ndarray]], sample_rate: int) -> int:
    """Samples by which the second waveform [S] of the pairs trails the first, one number for all pairs.

    The cross-correlation of log loudness envelopes, added up over the pairs. Not of the waveforms: a
    parametric codec makes up its own phases, and Codec2's waveform correlation peaks anywhere between 60 and
    500 samples at 16 kHz, from clip to clip. Not one delay a clip: a codec holds back the same time whatever
    it codes, so the sum of the clips knows better than each of them.

    Args:
        pairs: (before, after) of one codec; pairs of which one has no samples say nothing.
        sample_rate: Hz of all of them.

    Returns:
        Delay, positive where the output is late, at most ``LONGEST_DELAY`` seconds; 0 without any pair, and
        where it is under ``SURE``, which is less than loudness can tell and than any judge here minds.
    """
    reach = round(LONGEST_DELAY * sample_rate)
    total = np.zeros(2 * reach + 1)
    for before, after in pairs:
        if len(before) == 0 or len(after) == 0:
            continue
        first, second = _envelope(before, sample_rate), _envelope(after, sample_rate)
        size = 1 << (len(first) + len(second) + reach).bit_length()
        product = np.fft.irfft(np.fft.rfft(second, size) * np.conj(np.fft.rfft(first, size)), size)
        scale = float(np.linalg.norm(first) * np.linalg.norm(second))
        if scale > 0:
            total += np.concatenate([product[-reach:], product[: reach + 1]]) / scale
    delay = int(total.argmax()) - reach if total.any() else 0
    return delay if abs(delay) >= SURE * sample_rate else 0


def without_delay(waveform: np.ndarray, delay: int, length: int) -> np.ndarray:
    """``waveform`` [S] moved ``delay`` samples towards its start, and at most ``length`` samples of it."""
    if delay < 0:
        waveform = np.concatenate([np.zeros(-delay, waveform.dtype), waveform])
    return waveform[max(delay, 0) :][:length]


def _envelope(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    window = np.hanning(round(_WINDOW * sample_rate))
    smooth = np.convolve(np.abs(waveform.astype(np.float64)), window / window.sum(), "same")
    # Silence, under -60 dB, is 0: what the edges of the clips lack must not pull the sum towards no delay.
    return np.log1p(smooth / 1e-3)
