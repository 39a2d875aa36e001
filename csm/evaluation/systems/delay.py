"""Delay of a codec: its measurement, and its removal from the output."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LONGEST_DELAY = 0.1  # seconds; twice what a 40 ms speech frame and its filters can hold back
SURE = 0.002  # seconds; the measured delay of tokenizers without delay is up to 0.6 ms
_WINDOW = 0.02  # seconds; of the loudness envelope: longer than a pitch period of 50 Hz, shorter than a phone


def common_delay(pairs: Sequence[tuple[np.ndarray, np.ndarray]], sample_rate: int) -> int:
    """Measures the samples by which the second waveform [S] of the pairs trails the first, over all pairs.

    The argmax of the cross-correlation of log loudness envelopes, summed over the pairs. Not of the
    waveforms: a
    parametric codec synthesises phases, and Codec2's waveform correlation peaks anywhere between 60 and
    500 samples at 16 kHz, from clip to clip. Not one delay for each clip: a codec's delay does not depend on
    what it codes, so the sum over clips is more accurate.

    Args:
        pairs: (before, after) of one codec; pairs of which one has no samples are left out.
        sample_rate: Rate of all waveforms in Hz.

    Returns:
        Delay, positive where the output is late, at most `LONGEST_DELAY` seconds; 0 without any pair, and
        where it is
        under `SURE`, below the accuracy of the envelopes.
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
    """Moves a waveform [S] `delay` samples towards its start and cuts it to at most `length` samples."""
    if delay < 0:
        waveform = np.concatenate([np.zeros(-delay, waveform.dtype), waveform])
    return waveform[max(delay, 0) :][:length]


def _envelope(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    window = np.hanning(round(_WINDOW * sample_rate))
    smooth = np.convolve(np.abs(waveform.astype(np.float64)), window / window.sum(), "same")
    # Silence, under -60 dB, is 0: the clips' edges must not bias the sum towards no delay.
    return np.log1p(smooth / 1e-3)
