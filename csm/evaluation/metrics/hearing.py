"""Transcription by the model: its word error rate, with the transcripts of other clips as a control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from csm.audio.resampling import resample
from csm.evaluation.core.clips import Clip, ClipSet, ClipSets, mono
from csm.evaluation.core.evaluators import NotMeasurable
from csm.evaluation.core.metric import Metric, MetricInfo, Score, Scores, failed, scored
from csm.evaluation.metrics.words import error_scores
from csm.generation.session import Session
from csm.generation.talker import Talker

HEARD, PERMUTED = "heard_wer", "heard_wer_permuted"


class Hearing(Metric):
    """Word error rate of the model's own transcription of recordings.

    Args:
        talker: Talker on the CPU.
    """

    def __init__(self, talker: Talker) -> None:
        super().__init__()
        self.talker = talker

    def choose(self, sets: ClipSets) -> list[ClipSet]:
        """Returns the recordings of single lines.

        Raises:
            NotMeasurable: The model has csm-1b's form, which speaks and does not write.
        """
        if self.talker.model.config.zeros_end:
            raise NotMeasurable("transcription: a model of csm-1b's form generates speech only")
        return [one for one in sets if one.condition == sets.reference and one.kind == "lines"]

    def measure(self, clips: ClipSet, recording: ClipSet | None) -> Iterator[Scores]:
        """Transcribes once; yields the error rate against the own texts and against those of other clips."""
        transcripts = [self._heard(clip) for clip in clips.clips]
        infos = hearing_infos()
        yield Scores(info=infos[HEARD], scores=error_scores(clips.clips, transcripts))
        if len(transcripts) > 1:
            others = permuted(clips.clips, transcripts)
            yield Scores(info=infos[PERMUTED], scores=error_scores(clips.clips, others))

    def _heard(self, clip: Clip) -> Score:
        """Transcribes a clip in a conversation of its own; the transcript is the detail of a score of 0."""
        if clip.waveform is None:
            return failed(clip, clip.reason)
        talker, rate = self.talker, self.talker.tokenizer.config.sample_rate
        voice = talker.voices.get(clip.speaker)
        audio = resample(torch.from_numpy(mono(clip.waveform)), clip.sample_rate, rate)
        count = talker.model.config.num_codebooks
        try:
            with torch.no_grad():
                codes, _ = talker.tokenizer.encode(audio[None, None], num_codebooks=count)
            text = Session(talker.model).transcribe(codes[0], 0 if voice is None else voice.number)
        except ValueError as error:
            return failed(clip, str(error))
        return scored(clip, 0.0, detail=text)


def permuted(clips: Sequence[Clip], transcripts: Sequence[Score]) -> list[Score]:
    """Gives every clip the transcript of another, half the clips away."""
    shift = max(1, len(clips) // 2)
    found = []
    for place, clip in enumerate(clips):
        other = transcripts[(place + shift) % len(transcripts)]
        found.append(
            failed(clip, other.reason) if other.value is None else scored(clip, 0.0, detail=other.detail)
        )
    return found


def hearing_infos() -> dict[str, MetricInfo]:
    """Describes the error rate and its control."""
    shared: dict[str, Any] = {
        "area": "transcription",
        "unit": "errors per word",
        "direction": "lower",
        "best": 0.0,
        "evaluator": "csm.evaluation.metrics.hearing",
    }
    return {
        HEARD: MetricInfo(
            name=HEARD,
            title="Word error rate of what the model writes",
            definition="word errors / words of the model's own transcription of the recording; writing "
            "nothing scores 1",
            **shared,
        ),
        PERMUTED: MetricInfo(
            name=PERMUTED,
            title="The same against other lines",
            definition="control: the transcript of the clip half the list away against this clip's text",
            **shared,
        ),
    }
