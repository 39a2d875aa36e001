"""What the tokenizer keeps: resynthesis against its recording, and the use of the codebooks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torchaudio

from csm.evaluation.judge import (
    JUDGE_SAMPLE_RATE,
    Clip,
    as_clips,
    judge_each,
    optional_import,
    package_version,
    prepared,
)
from csm.evaluation.statistics import MetricInfo, Score, failed

LENGTH_TOLERANCE = 0.09  # seconds; one frame at 12.5 Hz and a little: what padding to frames leaves
_MEL = torchaudio.transforms.MelSpectrogram(
    sample_rate=JUDGE_SAMPLE_RATE, n_fft=1024, hop_length=160, n_mels=80, f_max=8000.0
)
PairMeasure = Callable[[np.ndarray, np.ndarray], float]


def equal_lengths(
    reference: np.ndarray, decoded: np.ndarray, sample_rate: int
) -> tuple[np.ndarray, np.ndarray]:
    """Both waveforms cut to the shorter one; time 0 is taken to be the same in both.

    Raises:
        ValueError: they differ by more than ``LENGTH_TOLERANCE`` seconds.
    """
    difference = abs(len(reference) - len(decoded)) / sample_rate
    if difference > LENGTH_TOLERANCE:
        raise ValueError(f"lengths differ by {difference:.2f} s; resynthesis must be aligned in time")
    length = min(len(reference), len(decoded))
    return reference[:length], decoded[:length]


def paired_scores(pairs: Sequence[tuple[Clip, Clip]], measure: PairMeasure) -> list[Score]:
    """``measure(recording, resynthesis)`` at 16 kHz of each pair; failures are counted, never scored."""
    scores = []
    for recording, resynthesis in pairs:
        reference = prepared(recording)
        if reference.waveform is None:
            reason = f"recording: {reference.reason or 'no audio'}"
            scores.append(failed(resynthesis.id, resynthesis.conversation, reason))
            continue
        original = reference.waveform

        def compare(clip: Clip, original: np.ndarray = original) -> float:
            assert clip.waveform is not None
            return measure(*equal_lengths(original, clip.waveform, clip.sample_rate))

        scores.extend(judge_each([resynthesis], compare))
    return scores


def paired(items: Sequence[tuple[np.ndarray, np.ndarray, int]]) -> list[tuple[Clip, Clip]]:
    """``(recording [S], resynthesis [S], sample_rate)`` tuples as pairs of clips."""
    recordings = as_clips([(reference, rate) for reference, _, rate in items])
    return list(zip(recordings, as_clips([(decoded, rate) for _, decoded, rate in items]), strict=True))


def pesq_wideband(reference: np.ndarray, decoded: np.ndarray) -> float:
    """PESQ-WB (ITU-T P.862.2), 1.04 to 4.64, of 16 kHz waveforms [S]; raises where PESQ does."""
    library = optional_import("pesq", package="pesq", metric="PESQ-WB")
    return float(library.pesq(JUDGE_SAMPLE_RATE, reference, decoded, "wb"))


def short_time_intelligibility(reference: np.ndarray, decoded: np.ndarray) -> float:
    """STOI (Taal et al. 2011) of 16 kHz waveforms [S]; needs about 0.4 s of speech."""
    library = optional_import("pystoi", package="pystoi", metric="STOI")
    value = float(library.stoi(reference, decoded, JUDGE_SAMPLE_RATE))
    if value == 1e-5:  # what pystoi answers, with a warning, when it cannot judge
        raise ValueError("too little speech for STOI")
    return value


def si_sdr(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Scale-invariant signal-to-distortion ratio in dB (Le Roux et al. 2019), means removed."""
    reference = reference.astype(np.float64) - reference.mean(dtype=np.float64)
    decoded = decoded.astype(np.float64) - decoded.mean(dtype=np.float64)
    energy = float(reference @ reference)
    if energy == 0.0:
        raise ValueError("the recording is silent")
    target = (float(decoded @ reference) / energy) * reference
    residue = float(((decoded - target) ** 2).sum())
    signal = float((target**2).sum())
    if signal == 0.0:
        raise ValueError("the resynthesis has nothing in common with the recording")
    return 10.0 * math.log10(signal / max(residue, signal * 1e-10))  # 100 dB: as good as equal


def log_mel_distance(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Mean absolute difference of natural-log mel spectrograms (80 bands, 10 ms, floor 1e-5)."""
    mels = _MEL(torch.from_numpy(np.stack([reference, decoded]).astype(np.float32))).clamp(min=1e-5).log()
    return float((mels[0] - mels[1]).abs().mean())


PAIR_MEASURES: dict[str, PairMeasure] = {
    "pesq_wb": pesq_wideband,
    "stoi": short_time_intelligibility,
    "si_sdr": si_sdr,
    "log_mel_l1": log_mel_distance,
}


def codec_metrics() -> dict[str, MetricInfo]:
    """PESQ-WB, STOI, SI-SDR and log-mel L1, each of resynthesis against its recording."""
    shared: dict[str, Any] = {"area": "codec", "sample_rate": JUDGE_SAMPLE_RATE}
    both = "both at 16 kHz, cut to equal length"
    return {
        "pesq_wb": MetricInfo(
            name="pesq_wb",
            title="PESQ-WB",
            unit="MOS-LQO, 1 to 4.64",
            direction="higher",
            worst=1.0,
            evaluator=f"pesq {package_version('pesq')}",
            definition=f"ITU-T P.862.2 against the recording; {both}",
            **shared,
        ),
        "stoi": MetricInfo(
            name="stoi",
            title="STOI",
            unit="0 to 1",
            direction="higher",
            worst=0.0,
            evaluator=f"pystoi {package_version('pystoi')}",
            definition=f"short-time objective intelligibility against the recording; {both}",
            **shared,
        ),
        "si_sdr": MetricInfo(
            name="si_sdr",
            title="SI-SDR",
            unit="dB",
            direction="higher",
            evaluator="csm.evaluation.codec",
            definition=f"scale-invariant signal-to-distortion ratio against the recording; {both}",
            **shared,
        ),
        "log_mel_l1": MetricInfo(
            name="log_mel_l1",
            title="Log-mel distance",
            unit="nat",
            direction="lower",
            evaluator=f"csm.evaluation.codec over torchaudio {torchaudio.__version__.split('+')[0]}",
            definition=f"mean |difference| of 80-band natural-log mel spectrograms; {both}",
            **shared,
        ),
    }


def codebook_summary(statistics: Mapping[str, Any], frame_rate: float = 12.5) -> dict[str, float]:
    """Totals of :func:`csm.tokenizer.usage.codebook_statistics` (or of a ``codebooks.json``).

    Efficiency is sum H / sum log2 V, with H the entropy of each codebook in bits; the bit rates are
    what the codes occupy and what their entropies would need, in bits per second.

    Raises:
        ValueError: a list is missing, or the lists are not of one length.
    """
    missing = [key for key in ("usage", "perplexity", "dead", "codebook_size") if key not in statistics]
    if missing:
        raise ValueError(f"codebook statistics lack {', '.join(missing)}")
    size = int(statistics["codebook_size"])
    perplexity = np.asarray(statistics["perplexity"], dtype=np.float64)
    usage = usage_shares(statistics)
    if not len(perplexity) == len(usage) == len(statistics["dead"]) > 0:
        raise ValueError("codebook statistics: usage, perplexity and dead must be lists of one length")
    entropy = np.log2(np.maximum(perplexity, 1.0))
    full = len(perplexity) * math.log2(size)
    return {
        "codebooks": float(len(perplexity)),
        "mean_usage": float(usage.mean()),
        "efficiency": float(entropy.sum() / full),
        "dead_codes": float(np.sum(statistics["dead"])),
        "bitrate": full * frame_rate,
        "entropy_bitrate": float(entropy.sum()) * frame_rate,
    }


def usage_shares(statistics: Mapping[str, Any]) -> np.ndarray:
    """Usage of each codebook as a share, also where the file counts codes."""
    usage = np.asarray(statistics["usage"], dtype=np.float64)
    return usage / int(statistics["codebook_size"]) if usage.size and usage.max() > 1.0 else usage


def codebook_metrics() -> list[MetricInfo]:
    """The totals of :func:`codebook_summary` that a report lists."""
    rows = [
        ("mean_usage", "Codebook usage", "share of codes", "higher", "mean share of codes that occur"),
        ("efficiency", "Codebook efficiency", "0 to 1", "higher", "sum of entropies / sum of log2 sizes"),
        ("dead_codes", "Dead codes", "codes", "lower", "codes that never occur, all codebooks together"),
        ("bitrate", "Bit rate", "bit/s", "none", "codebooks x log2 size x 12.5 frames per second"),
        (
            "entropy_bitrate",
            "Bit rate by entropy",
            "bit/s",
            "none",
            "sum of entropies x 12.5 frames per second",
        ),
    ]
    return [
        MetricInfo(
            name=name,
            title=title,
            area="codebooks",
            unit=unit,
            direction=direction,
            evaluator="csm.evaluation.codec, from codes/codebooks.json",
            definition=definition,
        )
        for name, title, unit, direction, definition in rows
    ]
