"""Speaker similarity: to the speaker's mean voice, and how it develops over the turns of a dialogue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from csm.data.manifest import Corpus, Turn
from csm.evaluation.core.clips import EVALUATION_RATE, Clip, ClipSet, ClipSets
from csm.evaluation.core.evaluators import NotMeasurable
from csm.evaluation.core.metric import (
    Estimate,
    Measurement,
    Metric,
    MetricInfo,
    Score,
    Scores,
    failed,
    scored,
)
from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.metrics.change_point import ERROR_RATE, FEWEST_TURNS, ChangePoint, change_point
from csm.evaluation.metrics.drift import drift
from csm.evaluation.metrics.speaker import (
    SHORTEST_RELIABLE,
    SpeakerEncoder,
    Voices,
    embed_all,
    reference_voices,
)

NAMES = ("speaker_similarity", "speaker_margin", "speaker_nearest_is_own")


class SpeakerSimilarity(Metric):
    """Similarity to the mean voice of other recordings, margin, nearest voice, and drift over turns.

    Args:
        corpus: Corpus with the recordings to compare with; None where there is none.
        options: Seed and repeats of the bootstrap.
        references: Most recordings for the mean voice of a speaker.
        speakers: Speakers whose mean voice is taken from the train split; None for all.
        prompts: Recordings that make the mean voice of further speakers.
        followed: Speakers whose voice is followed over the turns of dialogues; None for all.

    Raises:
        NotMeasurable: There are no recordings to compare with.
    """

    def __init__(
        self,
        corpus: Corpus | None,
        options: RunnerOptions,
        *,
        references: int,
        speakers: Sequence[str] | None = None,
        prompts: Mapping[str, Sequence[Turn]] | None = None,
        followed: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if corpus is None:
            raise NotMeasurable("speaker similarity needs the corpus: give --corpus FOLDER")
        self.options, self.followed = options, followed
        self.encoder = SpeakerEncoder()
        found = reference_voices(
            corpus, self.encoder, count=references, seed=options.seed, speakers=speakers, prompts=prompts
        )
        self.voices = found.voices
        self.missing += found.missing
        self.details["reference_voices"] = found.counts
        self.infos = similarity_infos(self.encoder.evaluator, len(found.voices.names))

    def choose(self, sets: ClipSets) -> Sequence[ClipSet]:
        """Returns all sets of single utterances, and notes speakers without recordings to compare with."""
        speakers = {clip.speaker for one in sets.mono for clip in one.clips}
        if unknown := sorted(speakers - set(self.voices.names)):
            self.missing.append(
                f"speaker similarity of {', '.join(unknown)}: no recording of 1.6 to 6 s in the train split; "
                "their clips are left out in every condition"
            )
        return sets.mono

    def measure(self, clips: ClipSet, recording: ClipSet | None) -> Iterator[Measurement]:
        """Yields the scores of known speakers; for whole dialogues also similarity over turns and drift."""
        known = [clip for clip in clips.clips if clip.speaker in self.voices.names]
        scores = similarity_scores(known, *embed_all(self.encoder, known), self.voices)
        for name, own in scores.items():
            yield Scores(info=self.infos[name], scores=own)
        if clips.kind == "turns":
            yield from self._over_turns(clips.condition, known, scores["speaker_similarity"], recording)

    def _over_turns(
        self, condition: str, clips: Sequence[Clip], scores: Sequence[Score], recording: ClipSet | None
    ) -> Iterator[Measurement]:
        """Similarity turn by turn and its slope, of turns whose recording is long enough."""
        recorded = {} if recording is None else {clip.id: clip.duration for clip in recording.clips}
        eligible: list[Score] = []
        series: dict[tuple[str, str], list[tuple[float, float]]] = {}
        turns: dict[tuple[str, str], list[Score]] = {}
        for clip, score in zip(clips, scores, strict=True):
            if self.followed is not None and clip.speaker not in self.followed:
                continue
            if (recorded.get(clip.id) or clip.duration) < SHORTEST_RELIABLE:
                continue
            if score.value is not None and clip.duration < SHORTEST_RELIABLE:
                score = failed(clip, f"spoken in less than {SHORTEST_RELIABLE} s, recorded in more")
            eligible.append(score)
            turns.setdefault((clip.conversation, clip.speaker), []).append(score)
            if score.value is not None:
                voice = series.setdefault((clip.conversation, clip.speaker), [])
                voice.append((float(clip.turn), score.value))
        yield Scores(info=self.infos["character_similarity"], scores=eligible)
        self.details.setdefault("character", {})[condition] = {
            "series": [
                {"dialogue": dialogue, "speaker": name, "points": points}
                for (dialogue, name), points in series.items()
            ],
            "minimum": min((value for points in series.values() for _, value in points), default=None),
        }
        yield from self._drift(list(series.values()), list(turns.values()))
        yield from self._changes(condition, turns)

    def _changes(
        self, condition: str, turns: Mapping[tuple[str, str], Sequence[Score]]
    ) -> Iterator[Estimate]:
        """Share of long enough voices that change; one with a turn without similarity is a failure."""
        voices = {place: own for place, own in turns.items() if len(own) >= FEWEST_TURNS}
        if not voices:
            return
        failures: Counter[str] = Counter()
        found: dict[tuple[str, str], ChangePoint] = {}
        for place, own in voices.items():
            values = [score.value for score in own if score.value is not None]
            change = change_point(values, seed=self.options.seed) if len(values) == len(own) else None
            if change is None:
                failures["a turn has no similarity"] += 1
            else:
                found[place] = change
        self.details["character"][condition]["changes"] = [
            {"dialogue": dialogue, "speaker": name, "turn": change.place, "drop": change.drop, "p": change.p}
            for (dialogue, name), change in found.items()
        ]
        yield Estimate(
            info=self.infos["character_changes"],
            value=sum(change.found for change in found.values()) / len(found) if found else None,
            n_in=len(voices),
            failures=failures,
            conversations=len({dialogue for dialogue, _ in voices}),
        )

    def _drift(
        self, series: list[list[tuple[float, float]]], voices: list[list[Score]]
    ) -> Iterator[Estimate]:
        """Slope of the similarity of voices with several turns; a turn without similarity is a failure."""
        several = [score for own in voices if len(own) > 1 for score in own]
        if not several:
            return
        found = drift(series, repeats=self.options.repeats, seed=self.options.seed)
        yield Estimate(
            info=self.infos["character_drift"],
            value=None if found is None else found.slope,
            ci95=None if found is None else found.ci95,
            n_in=len(several),
            failures=Counter(score.reason for score in several if score.reason is not None),
            conversations=0 if found is None else found.voices,
        )


class OriginalSimilarity(Metric):
    """Similarity of each clip to the recording of the same words.

    Raises:
        EvaluatorUnavailable: Resemblyzer is not installed.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoder = SpeakerEncoder()
        self._recordings: dict[str, list[np.ndarray | str]] = {}

    def measure(self, clips: ClipSet, recording: ClipSet | None) -> Iterator[Scores]:
        """Yields the cosines; the recordings of a group are embedded once."""
        if recording is None:
            return
        if clips.group not in self._recordings:
            self._recordings[clips.group] = _embeddings(self.encoder, recording.clips)
        real = self._recordings[clips.group]
        own = real if clips is recording else _embeddings(self.encoder, clips.clips)
        info = original_info(self.encoder.evaluator)
        yield Scores(info=info, scores=original_scores(clips.clips, real, own))


def similarity_scores(
    clips: Sequence[Clip], outcomes: Sequence[Score], embeddings: Sequence[np.ndarray], voices: Voices
) -> dict[str, list[Score]]:
    """Computes the cosine to the speaker's mean voice, its margin over the nearest other, and which is
    nearest.

    Args:
        clips: Clips with their `speaker`.
        outcomes, embeddings: Result of `embed_all` for the same clips.
        voices: Mean voices of all speakers.

    Returns:
        A score for each clip by the names in `NAMES`; `detail` is the name of the nearest voice.
    """
    result: dict[str, list[Score]] = {name: [] for name in NAMES}
    remaining = iter(embeddings)
    for clip, outcome in zip(clips, outcomes, strict=True):
        values: tuple[float, float, float] | None = None
        reason, nearest = outcome.reason, None
        if outcome.value is not None:
            cosines = voices.cosines(next(remaining))
            try:
                own = voices.index(clip.speaker)
                others = np.delete(cosines, own)
                margin = float(cosines[own] - others.max()) if others.size else float("nan")
                values = (float(cosines[own]), margin, float(int(cosines.argmax()) == own))
                nearest = voices.names[int(cosines.argmax())]
            except ValueError as error:
                reason = str(error)
        for name, value in zip(NAMES, values or (None, None, None), strict=True):
            if value is None:
                result[name].append(failed(clip, reason))
            elif not np.isfinite(value):
                result[name].append(failed(clip, "only one speaker has reference recordings"))
            else:
                result[name].append(scored(clip, value, detail=nearest))
    return result


def original_scores(
    clips: Sequence[Clip], real: Sequence[np.ndarray | str], own: Sequence[np.ndarray | str]
) -> list[Score]:
    """Computes the cosine of unit embeddings; a text in place of one is why there is none."""
    scores = []
    for clip, original, embedding in zip(clips, real, own, strict=True):
        if isinstance(original, str):
            scores.append(failed(clip, f"recording: {original}"))
        elif isinstance(embedding, str):
            scores.append(failed(clip, embedding))
        else:
            scores.append(scored(clip, float(original @ embedding)))
    return scores


def _embeddings(encoder: SpeakerEncoder, clips: Sequence[Clip]) -> list[np.ndarray | str]:
    outcomes, embeddings = embed_all(encoder, clips)
    found = iter(embeddings)
    return [next(found) if score.value is not None else str(score.reason) for score in outcomes]


def original_info(evaluator: str) -> MetricInfo:
    """Describes speaker similarity to the original clip."""
    return MetricInfo(
        name="original_similarity",
        title="Speaker similarity to the original",
        area="speaker",
        unit="cosine, 0 to 1",
        direction="higher",
        worst=0.0,
        best=1.0,
        evaluator=evaluator,
        sample_rate=EVALUATION_RATE,
        definition="cosine of the clip's speaker embedding and the original clip's; both say the same words, "
        "so it lies above the similarity of two clips of one speaker",
    )


def similarity_infos(evaluator: str, speakers: int) -> dict[str, MetricInfo]:
    """Describes similarity to the mean voice, margin, nearest voice, and similarity over turns."""
    shared: dict[str, Any] = {"area": "speaker", "evaluator": evaluator, "sample_rate": EVALUATION_RATE}
    against = "mean embedding of the speaker's recordings in the train split"
    infos = [
        MetricInfo(
            name="speaker_similarity",
            title="Speaker similarity",
            unit="cosine, 0 to 1",
            direction="higher",
            worst=0.0,
            best=1.0,
            definition=f"cosine of the clip's embedding and the {against}; weak under {SHORTEST_RELIABLE} s",
            **shared,
        ),
        MetricInfo(
            name="speaker_margin",
            title="Margin over the nearest other voice",
            unit="cosine difference",
            direction="higher",
            worst=-1.0,
            definition=f"similarity to the own voice minus the best of the other {speakers - 1} voices",
            **shared,
        ),
        MetricInfo(
            name="speaker_nearest_is_own",
            title="Nearest voice is the own",
            unit="share of clips",
            direction="higher",
            worst=0.0,
            best=1.0,
            definition=f"the nearest of {speakers} mean voices is the speaker's",
            **shared,
        ),
        MetricInfo(
            name="character_similarity",
            title="Similarity over turns",
            unit="cosine, 0 to 1",
            direction="higher",
            worst=0.0,
            best=1.0,
            definition="similarity to the own mean voice, turn by turn of a dialogue; only turns whose "
            f"recording lasts {SHORTEST_RELIABLE} s; clips shorter than that fail",
            **shared,
        ),
        MetricInfo(
            name="character_drift",
            title="Drift of the voice",
            unit="cosine per turn",
            direction="nearer_to_recording",
            definition="common slope of similarity over turn number, each voice with its own level; "
            "interval by bootstrap of turns inside each voice",
            **shared,
        ),
        MetricInfo(
            name="character_changes",
            title="Voices that change",
            unit="share of voices",
            direction="lower",
            worst=1.0,
            definition=f"voices of at least {FEWEST_TURNS} turns in a dialogue whose similarity drops "
            f"from some turn on (permutation test); {100 * ERROR_RATE:.0f} % of unchanged ones count too",
            **shared,
        ),
    ]
    return {info.name: info for info in infos}
