"""Fidelity of resynthesis to its recording: PESQ-WB, STOI and log-mel distance.

No SI-SDR: where phases are recovered or a vocoder synthesises speech, it is far below 0 dB however the speech
sounds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torchaudio

from csm.evaluation.core.clips import EVALUATION_RATE, Clip, ClipSet, ClipSets, as_clips, prepared
from csm.evaluation.core.evaluators import optional_import, package_version
from csm.evaluation.core.metric import Metric, MetricInfo, Score, Scores, failed, score_each

LENGTH_TOLERANCE = 0.09  # seconds; one frame at 12.5 Hz and a little: what padding to frames leaves
_MEL = torchaudio.transforms.MelSpectrogram(
    sample_rate=EVALUATION_RATE, n_fft=1024, hop_length=160, n_mels=80, f_max=8000.0
)
PairMeasure = Callable[[np.ndarray, np.ndarray], float]


def equal_lengths(
    reference: np.ndarray, decoded: np.ndarray, sample_rate: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts both waveforms to the shorter one; time 0 is assumed to be the same in both.

    Raises:
        ValueError: Their lengths differ by more than `LENGTH_TOLERANCE` seconds.
    """
    difference = abs(len(reference) - len(decoded)) / sample_rate
    if difference > LENGTH_TOLERANCE:
        raise ValueError(f"lengths differ by {difference:.2f} s; resynthesis must be aligned in time")
    length = min(len(reference), len(decoded))
    return reference[:length], decoded[:length]


def paired_scores(pairs: Sequence[tuple[Clip, Clip]], measure: PairMeasure) -> list[Score]:
    """Computes `measure(recording, resynthesis)` at 16 kHz of each pair; failures are counted, never "
    "scored."""
    scores = []
    for recording, resynthesis in pairs:
        reference = prepared(recording)
        if reference.waveform is None:
            scores.append(failed(resynthesis, f"recording: {reference.reason or 'no audio'}"))
            continue
        original = reference.waveform

        def compare(clip: Clip, original: np.ndarray = original) -> float:
            assert clip.waveform is not None
            return measure(*equal_lengths(original, clip.waveform, clip.sample_rate))

        scores.extend(score_each([resynthesis], compare))
    return scores


def paired(items: Sequence[tuple[np.ndarray, np.ndarray, int]]) -> list[tuple[Clip, Clip]]:
    """Makes pairs of clips of `(recording [S], resynthesis [S], sample_rate)` tuples."""
    recordings = as_clips([(reference, rate) for reference, _, rate in items])
    return list(zip(recordings, as_clips([(decoded, rate) for _, decoded, rate in items]), strict=True))


def pesq_wideband(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Computes PESQ-WB (ITU-T P.862.2), 1.04 to 4.64, of 16 kHz waveforms [S]; raises where PESQ does."""
    library = optional_import("pesq", package="pesq", metric="PESQ-WB")
    return float(library.pesq(EVALUATION_RATE, reference, decoded, "wb"))


def short_time_intelligibility(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Computes STOI (Taal et al. 2011) of 16 kHz waveforms [S]; needs about 0.4 s of speech."""
    library = optional_import("pystoi", package="pystoi", metric="STOI")
    value = float(library.stoi(reference, decoded, EVALUATION_RATE))
    if value == 1e-5:  # what pystoi returns, with a warning, for too little speech
        raise ValueError("too little speech for STOI")
    return value


def log_mel_distance(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Computes the mean absolute difference of natural-log mel spectrograms (80 bands, 10 ms, floor 1e-5)."""
    mels = _MEL(torch.from_numpy(np.stack([reference, decoded]).astype(np.float32))).clamp(min=1e-5).log()
    return float((mels[0] - mels[1]).abs().mean())


PAIR_MEASURES: dict[str, PairMeasure] = {
    "pesq_wb": pesq_wideband,
    "stoi": short_time_intelligibility,
    "log_mel_l1": log_mel_distance,
}


class Fidelity(Metric):
    """One measure of clips against the recordings that they were made from.

    Args:
        name: One of `PAIR_MEASURES`.
        conditions: Conditions that are measured; None for all.
    """

    def __init__(self, name: str, conditions: Sequence[str] | None = None) -> None:
        super().__init__()
        self.info, self.pair_measure = fidelity_infos()[name], PAIR_MEASURES[name]
        self.conditions = conditions

    def choose(self, sets: ClipSets) -> list[ClipSet]:
        """Returns the sets of single utterances in the conditions."""
        return [one for one in sets.mono if self.conditions is None or one.condition in self.conditions]

    def measure(self, clips: ClipSet, recording: ClipSet | None) -> Iterator[Scores]:
        """Yields the scores of the pairs; the recording against itself shows the end of the scale."""
        if recording is not None:
            pairs = list(zip(recording.clips, clips.clips, strict=True))
            yield Scores(info=self.info, scores=paired_scores(pairs, self.pair_measure))


def fidelity_infos() -> dict[str, MetricInfo]:
    """Describes PESQ-WB, STOI and log-mel distance."""
    shared: dict[str, Any] = {"area": "codec", "sample_rate": EVALUATION_RATE}
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
            best=1.0,
            evaluator=f"pystoi {package_version('pystoi')}",
            definition=f"short-time objective intelligibility against the recording; {both}",
            **shared,
        ),
        "log_mel_l1": MetricInfo(
            name="log_mel_l1",
            title="Log-mel distance",
            unit="nat",
            direction="lower",
            best=0.0,
            evaluator=f"csm.evaluation.metrics.fidelity, torchaudio {torchaudio.__version__.split('+')[0]}",
            definition=f"mean |difference| of 80-band natural-log mel spectrograms; {both}",
            **shared,
        ),
    }
