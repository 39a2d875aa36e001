"""Every judge over every version of the clips: words, sound against the recording, opinion, voice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from csm.evaluation import codec as pairs_of
from csm.evaluation import intelligibility as words
from csm.evaluation import naturalness
from csm.evaluation.codec_versions import Version
from csm.evaluation.judge import JUDGE_SAMPLE_RATE, Clip
from csm.evaluation.speaker import SpeakerEncoder, embed_all
from csm.evaluation.statistics import MetricInfo, Score, failed, judged, summarise

SUBSET = "held-out clips"


@dataclass(frozen=True, kw_only=True)
class Panel:
    """What a judge is given.

    Attributes:
        versions: The recordings first; a version that is missing here is left out by the judges.
        asr: faster-whisper model name or folder; None for the packaged tiny.en.
        repeats, seed: Of the bootstrap over conversations.
    """

    versions: Sequence[Version]
    asr: str | None
    repeats: int
    seed: int

    @property
    def present(self) -> list[Version]:
        """The versions that exist."""
        return [version for version in self.versions if not version.missing]

    def entry(self, info: MetricInfo, version: Version, scores: Sequence[Score]) -> dict[str, Any]:
        """One metric of one version as it stands in ``report.json``."""
        return summarise(
            info, scores, condition=version.name, subset=SUBSET, repeats=self.repeats, seed=self.seed
        )


Judge = Callable[[Panel], list[dict[str, Any]]]


def words_heard(panel: Panel) -> list[dict[str, Any]]:
    """Word error rates; what was heard stays beside every clip."""
    recogniser = words.WhisperRecogniser(panel.asr)
    metrics = words.intelligibility_metrics(recogniser.evaluator)
    entries = []
    for version in panel.present:
        hearings = words.transcribe_all(recogniser, version.clips)
        for name, capped in (("wer", False), ("wer_capped", True)):
            scores = words.error_scores(version.clips, hearings, capped=capped)
            entries.append(panel.entry(metrics[name], version, scores))
    return entries


def against_recording(panel: Panel, name: str) -> list[dict[str, Any]]:
    """One paired measure of every version; the recording against itself shows the end of its scale."""
    info, measure = pairs_of.codec_metrics()[name], pairs_of.PAIR_MEASURES[name]
    original = panel.versions[0]
    return [
        panel.entry(
            info,
            version,
            pairs_of.paired_scores(list(zip(original.clips, version.clips, strict=True)), measure),
        )
        for version in panel.present
    ]


def opinion(panel: Panel) -> list[dict[str, Any]]:
    """distillMOS of every version. Not DNSMOS, which ranks Codec2 above Opus."""
    judge = naturalness.DistillMos()
    info = naturalness.naturalness_metrics(distillmos=judge.evaluator)["distillmos"]
    return [
        panel.entry(info, version, naturalness.mean_opinion_scores(judge, version.clips))
        for version in panel.present
    ]


def voice(panel: Panel) -> list[dict[str, Any]]:
    """Does it sound like the same person as in the recording of the same words?"""
    encoder = SpeakerEncoder()
    info = voice_metric(encoder.evaluator)
    real = _embeddings(encoder, panel.versions[0].clips)
    return [
        panel.entry(info, version, voice_scores(version.clips, real, _embeddings(encoder, version.clips)))
        for version in panel.present
    ]


def voice_metric(evaluator: str) -> MetricInfo:
    """Speaker similarity to the original clip."""
    return MetricInfo(
        name="original_similarity",
        title="Speaker similarity to the original",
        area="speaker",
        unit="cosine, 0 to 1",
        direction="higher",
        worst=0.0,
        evaluator=evaluator,
        sample_rate=JUDGE_SAMPLE_RATE,
        definition="cosine of the clip's speaker embedding and the original clip's; both say the same words, "
        "so it lies above the similarity of two clips of one speaker",
    )


def voice_scores(
    clips: Sequence[Clip], real: Sequence[np.ndarray | str], heard: Sequence[np.ndarray | str]
) -> list[Score]:
    """Cosine of each clip's unit embedding to the original's; a text in its place is why there is none."""
    scores = []
    for clip, original, own in zip(clips, real, heard, strict=True):
        if isinstance(original, str):
            scores.append(failed(clip.id, clip.conversation, f"recording: {original}"))
        elif isinstance(own, str):
            scores.append(failed(clip.id, clip.conversation, own))
        else:
            scores.append(judged(clip.id, clip.conversation, float(original @ own)))
    return scores


def _embeddings(encoder: SpeakerEncoder, clips: Sequence[Clip]) -> list[np.ndarray | str]:
    outcomes, embeddings = embed_all(encoder, clips)
    found = iter(embeddings)
    return [next(found) if score.value is not None else str(score.reason) for score in outcomes]


# Longest first, so that two workers finish together.
JUDGES: dict[str, Judge] = {
    "word error rate": words_heard,
    "distillMOS": opinion,
    "speaker similarity": voice,
    "PESQ-WB": lambda panel: against_recording(panel, "pesq_wb"),
    "STOI": lambda panel: against_recording(panel, "stoi"),
    "log-mel distance": lambda panel: against_recording(panel, "log_mel_l1"),
}
