"""Sesame's two tests of pronunciation on what a voice said: homographs, and words that vary by speaker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from csm.evaluation.core.clips import EVALUATION_RATE, Clip, ClipSet, prepared
from csm.evaluation.core.metric import Metric, MetricInfo, Score, Scores, failed, scored
from csm.evaluation.metrics.pronunciation import EVALUATOR, PronunciationScorer, words_of

FIRST = "first turn"
OWN, GIVEN = "word said before", "word given before"


class PronunciationTests(Metric):
    """Share of homographs read as their sentence asks, and of words said as in the turn before.

    A clip's facts say what is looked for: "readings", the phones of the word's two pronunciations; "before"
    and "after", the words around it; "reading", 0 or 1 where one of them is asked for.

    Args:
        scorer: Scorer of pronunciations.
    """

    def __init__(self, scorer: PronunciationScorer) -> None:
        super().__init__()
        self.scorer = scorer
        self.infos = {info.name: info for info in _infos()}

    def measure(self, clips: ClipSet, recording: ClipSet | None) -> Iterator[Scores]:
        """Yields the share of one test; the first turns of a pair have none of their own."""
        if recording is None:
            scores = [self._asked(clip) for clip in clips.clips]
            yield Scores(info=self.infos["homographs_right"], scores=scores)
        elif clips is not recording:
            yield Scores(info=self.infos["pronunciation_kept"], scores=self._kept(clips, recording))

    def found(self, item: Clip) -> tuple[int, float]:
        """Returns the likelier reading of a clip, and by how many nats.

        Raises:
            ValueError: The clip has no audio, or is too short for its words.
        """
        clip = prepared(item)
        if clip.waveform is None:
            raise ValueError(clip.reason or "no audio")
        steps = self.scorer.features(torch.from_numpy(clip.waveform)[None])
        before, after = words_of(clip.facts["before"]), words_of(clip.facts["after"])
        first, second = ([*before, phones, *after] for phones in clip.facts["readings"])
        ratio = self.scorer.ratio(steps, first, second)
        return int(ratio < 0), abs(ratio)

    def _asked(self, clip: Clip) -> Score:
        try:
            reading, nats = self.found(clip)
        except ValueError as error:
            return failed(clip, str(error))
        return scored(clip, float(reading == clip.facts["reading"]), detail=_said(clip, reading, nats))

    def _kept(self, clips: ClipSet, first: ClipSet) -> list[Score]:
        scores, unlike = [], []
        for before, clip in zip(first.clips, clips.clips, strict=True):
            try:
                was, _ = self.found(before)
                reading, nats = self.found(clip)
            except ValueError as error:
                scores.append(failed(clip, str(error)))
                continue
            if before.facts["reading"] not in (None, was):
                unlike.append(before.facts["word"])
                continue
            scores.append(scored(clip, float(reading == was), detail=_said(clip, reading, nats)))
        if unlike:
            self.missing.append(
                f"{clips.group}: {len(unlike)} of {len(clips.clips)} first turns lack the pronunciation "
                f"that they were spelled for, and are left out: {', '.join(sorted(unlike))}"
            )
        return scores


def _said(clip: Clip, reading: int, nats: float) -> str:
    return f"{clip.facts['word']} as {''.join(clip.facts['readings'][reading])}, by {nats:.0f} nats"


def _infos() -> Sequence[MetricInfo]:
    shared: dict[str, Any] = {
        "area": "pronunciation",
        "direction": "higher",
        "worst": 0.0,
        "evaluator": EVALUATOR,
        "sample_rate": EVALUATION_RATE,
    }
    return (
        MetricInfo(
            name="homographs_right",
            title="Homographs read as the sentence asks",
            unit="share of sentences",
            definition="share of sentences whose homograph has the likelier of two alignments with the "
            "pronunciation that the sentence asks for; one pronunciation for both readings scores 0.5",
            **shared,
        ),
        MetricInfo(
            name="pronunciation_kept",
            title="Pronunciation of the turn before",
            unit="share of turns",
            definition="share of turns that say a word with two common pronunciations as the turn before "
            "did; where the turn before is given in both, a voice that ignores it scores 0.5",
            **shared,
        ),
    )
