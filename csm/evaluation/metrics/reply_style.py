"""Prosodic style of replies: against human replies, and its fit to the turn before.

No package carries emotion weights and the corpora carry no emotion labels, so nothing here names an emotion.
A clip's style is seven numbers of its prosody, standardised per speaker. Three measures:

* cosine of style between a reply and the human reply to the same turn, beside what another reply of the same
  speaker scores;
* concordance of arousal, an index of pitch, pitch range, loudness and tempo;
* fit to the turn before, by a probe of our own; only where the probe is better than chance on this corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from csm.data.manifest import Corpus
from csm.evaluation.core.clips import EVALUATION_RATE, Clip, ClipSet
from csm.evaluation.core.evaluators import NotMeasurable
from csm.evaluation.core.metric import Measurement, Metric, MetricInfo, Pooled, Score, Scores, failed, scored
from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.core.statistics import pairs_by_conversation
from csm.evaluation.metrics.context_probe import context_swap
from csm.evaluation.metrics.contours import Contour, Contours
from csm.evaluation.metrics.reply_pairs import learn_from_replies, turn_style
from csm.evaluation.metrics.style import StyleScale, arousal, concordance, cosine, style

Style = np.ndarray | str  # standardised style [7], or the reason why there is none


class ReplyStyle(Metric):
    """Style and arousal against the human reply, and fit to the turn before.

    Args:
        contours: Contours, shared with other metrics.
        corpus: Corpus that scale and probe are learned from; None where there is none.
        options: Seed and repeats of the bootstrap.
        probe_pairs: Most real (turn, reply) pairs to train the probe on.

    Raises:
        NotMeasurable: The corpus is missing or too small.
    """

    def __init__(
        self, contours: Contours, corpus: Corpus | None, options: RunnerOptions, *, probe_pairs: int
    ) -> None:
        super().__init__()
        if corpus is None:
            raise NotMeasurable("the style of replies needs the corpus: give --corpus FOLDER")
        self.contours, self.corpus = contours, corpus
        self.scale, self.probe = learn_from_replies(corpus, options, probe_pairs)
        self.infos = reply_style_infos(self.probe.evaluator)
        if not self.probe.above_chance:
            self.missing.append(
                f"fit to the previous turn: not measurable on this corpus: the context probe has "
                f"{self.probe.accuracy}"
            )

    def measure(self, clips: ClipSet, recording: ClipSet | None) -> Iterator[Measurement]:
        """Yields likeness to the human reply and, where the probe is better than chance, fit to context."""
        own = self._styles(clips)
        if clips is recording:
            yield from self._chance(clips.clips, own)
        elif recording is not None:
            yield from self._likeness(recording.clips, self._styles(recording), own)
        if self.probe.above_chance:
            yield from self._fit(clips.clips, self._contexts(clips, own), own)

    def _styles(self, clips: ClipSet) -> list[Style]:
        pairs = zip(self.contours.of(clips), clips.clips, strict=True)
        return [_standardised(shape, self.scale, clip.speaker) for shape, clip in pairs]

    def _likeness(
        self, clips: Sequence[Clip], human: Sequence[Style], own: Sequence[Style]
    ) -> Iterator[Measurement]:
        scores = [compared(*each) for each in zip(clips, human, own, strict=True)]
        yield Scores(info=self.infos["style_cosine"], scores=scores)
        groups, failures = pairs_by_conversation(clips, human, own)
        yield Pooled(
            info=self.infos["arousal_concordance"],
            groups=groups,
            statistic=_arousal_concordance,
            n_in=len(clips),
            failures=failures,
        )

    def _chance(self, clips: Sequence[Clip], human: Sequence[Style]) -> Iterator[Scores]:
        """What another human reply of the same speaker scores."""
        scores = []
        for number, (clip, own) in enumerate(zip(clips, human, strict=True)):
            others = [
                other
                for place, (who, other) in enumerate(zip(clips, human, strict=True))
                if place != number and who.speaker == clip.speaker and not isinstance(other, str)
            ]
            if not isinstance(own, str) and others:
                scores.append(scored(clip, float(np.mean([cosine(own, other) for other in others]))))
        yield Scores(info=self.infos["style_cosine"], scores=scores, condition="another human reply")

    def _contexts(self, clips: ClipSet, own: Sequence[Style]) -> list[Style | None]:
        """Style of the turn before each clip; None where no other speaker precedes it.

        In a whole dialogue it is the previous turn in the same condition; before a line it is the recording
        of the previous turn of its conversation in the corpus.
        """
        if clips.kind != "turns":
            return [self._before_line(clip) for clip in clips.clips]
        places = {(clip.conversation, clip.turn): place for place, clip in enumerate(clips.clips)}
        before = [places.get((clip.conversation, clip.turn - 1)) for clip in clips.clips]
        return [
            None if place is None or clips.clips[place].speaker == clip.speaker else own[place]
            for clip, place in zip(clips.clips, before, strict=True)
        ]

    def _before_line(self, clip: Clip) -> Style | None:
        for conversation in self.corpus.conversations:
            if conversation.id == clip.conversation and 0 < clip.turn < len(conversation.turns):
                context, turn = conversation.turns[clip.turn - 1 : clip.turn + 1]
                if context.speaker == turn.speaker:
                    return None
                try:
                    return self.scale.standardised(turn_style(self.corpus, context), context.speaker)
                except ValueError as error:
                    return f"turn before: {error}"
        return None

    def _fit(
        self, clips: Sequence[Clip], contexts: Sequence[Style | None], replies: Sequence[Style]
    ) -> Iterator[Scores]:
        fits: list[Score] = []
        swaps: list[Score] = []
        usable: list[tuple[Clip, np.ndarray, np.ndarray]] = []
        for clip, context, reply in zip(clips, contexts, replies, strict=True):
            if context is None:
                continue  # a first turn replies to no other speaker
            if isinstance(reply, str) or isinstance(context, str):
                failure = failed(clip, reply if isinstance(reply, str) else str(context))
                fits.append(failure)
                swaps.append(failure)
            else:
                usable.append((clip, context, reply))
                fits.append(scored(clip, self.probe.fit(context, reply)))
        changes = context_swap(self.probe, [(context, reply) for _, context, reply in usable])
        swaps += [scored(clip, change) for (clip, _, _), change in zip(usable, changes, strict=True)]
        yield Scores(info=self.infos["context_fit"], scores=fits)
        yield Scores(info=self.infos["context_swap"], scores=swaps)


def _standardised(shape: Contour | str, scale: StyleScale, speaker: str) -> Style:
    if isinstance(shape, str):
        return shape
    try:
        return scale.standardised(style(shape), speaker)
    except ValueError as error:
        return str(error)


def compared(clip: Clip, human: Style, own: Style) -> Score:
    """Scores the cosine of a reply's style and the human reply's."""
    if isinstance(human, str):
        return failed(clip, f"recording: {human}")
    if isinstance(own, str):
        return failed(clip, own)
    return scored(clip, cosine(human, own))


def _arousal_concordance(picked: list[list[tuple[np.ndarray, np.ndarray]]]) -> float | None:
    pairs = [pair for group in picked for pair in group]
    return concordance([arousal(first) for first, _ in pairs], [arousal(second) for _, second in pairs])


def reply_style_infos(probe: str) -> dict[str, MetricInfo]:
    """Describes style cosine, arousal concordance, context fit and context swap."""
    own = "csm style probe (our own: seven prosodic numbers standardised per speaker; no labels, no accuracy)"
    shared: dict[str, Any] = {"area": "prosodic style", "direction": "higher", "sample_rate": EVALUATION_RATE}
    return {
        "style_cosine": MetricInfo(
            name="style_cosine",
            title="Style like the human reply",
            unit="cosine, -1 to 1",
            worst=-1.0,
            evaluator=own,
            definition="cosine of the prosodic style of the reply and of the human reply to the same turn; "
            "beside it what another human reply of the same speaker scores",
            **shared,
        ),
        "arousal_concordance": MetricInfo(
            name="arousal_concordance",
            title="Arousal concordance",
            unit="CCC, -1 to 1",
            worst=-1.0,
            evaluator=own,
            definition="concordance correlation of the arousal index (pitch, range, loudness, tempo) with "
            "that of the human replies",
            **shared,
        ),
        "context_fit": MetricInfo(
            name="context_fit",
            title="Fit to the previous turn",
            unit="log-odds",
            evaluator=probe,
            definition="log-odds of the probe that this reply follows this turn",
            **shared,
        ),
        "context_swap": MetricInfo(
            name="context_swap",
            title="Loss of fit when the turn before is swapped",
            unit="log-odds",
            evaluator=probe,
            definition="fit to the true previous turn minus fit to the one of most unlike arousal; the "
            "reply stays the same",
            **shared,
        ),
    }
