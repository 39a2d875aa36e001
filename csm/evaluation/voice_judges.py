"""Judges of a voice that are models themselves: the words heard, whose voice it is, how natural it sounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from csm.data.manifest import Turn
from csm.evaluation import intelligibility as words
from csm.evaluation import naturalness
from csm.evaluation.material import chosen, turn_audio
from csm.evaluation.sections import LONGEST_REFERENCE
from csm.evaluation.speaker import (
    SHORTEST_RELIABLE,
    SpeakerEncoder,
    Voices,
    drift,
    embed_all,
    mean_voices,
    similarity_scores,
    speaker_metrics,
)
from csm.evaluation.statistics import MetricInfo, Score, summarise, summarise_groups
from csm.evaluation.voice_lines import CONVERSATION
from csm.evaluation.voice_material import RECORDING, ClipSet, VoiceMaterial

REFERENCES = 20  # train recordings of a speaker that make the mean voice; one more changes it by little


@dataclass
class Opinions:
    """What a judge hands back.

    Attributes:
        entries: Metrics as they stand in ``report.json``.
        missing: Reasons for what could not be had.
        details: Named data for the page.
    """

    material: VoiceMaterial
    entries: list[dict[str, Any]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    details: dict[str, Any] = field(default_factory=dict)

    def add(self, info: MetricInfo, one: ClipSet, scores: Sequence[Score]) -> None:
        """Summarises the scores of a set; nothing is added where there are none."""
        if scores:
            repeats, seed = self.material.repeats, self.material.seed
            self.entries.append(
                summarise(info, scores, condition=one.version, subset=one.group, repeats=repeats, seed=seed)
            )


Judge = Callable[[VoiceMaterial, Callable[[], Any]], Opinions]


def words_heard(material: VoiceMaterial, done: Callable[[], Any]) -> Opinions:
    """Word error rates; what was heard stays beside every clip."""
    opinions = Opinions(material)
    recogniser = words.WhisperRecogniser(material.asr)
    metrics = words.intelligibility_metrics(recogniser.evaluator)
    for one in material.sets:
        hearings = words.transcribe_all(recogniser, one.clips)
        for name, capped in (("wer", False), ("wer_capped", True)):
            opinions.add(metrics[name], one, words.error_scores(one.clips, hearings, capped=capped))
        done()
    return opinions


def naturalness_heard(material: VoiceMaterial, done: Callable[[], Any]) -> Opinions:
    """distillMOS. Not DNSMOS, which ranks Codec2 above Opus and takes five times as long."""
    opinions = Opinions(material)
    judge = naturalness.DistillMos()
    info = naturalness.naturalness_metrics(distillmos=judge.evaluator)["distillmos"]
    for one in material.sets:
        opinions.add(info, one, naturalness.mean_opinion_scores(judge, one.clips))
        done()
    return opinions


def voice_heard(material: VoiceMaterial, done: Callable[[], Any]) -> Opinions:
    """Similarity to the own mean voice, nearest voice, and how the main voice goes on in the conversation."""
    opinions = Opinions(material)
    encoder = SpeakerEncoder()
    voices = reference_voices(material, encoder, opinions)
    metrics = speaker_metrics(encoder.evaluator, len(voices.names))
    speakers = {clip.speaker for one in material.sets for clip in one.clips}
    if unknown := sorted(speakers - set(voices.names)):
        opinions.missing.append(
            f"speaker similarity of {', '.join(unknown)}: no train recording of 1.6 to 6 s; their clips are "
            f"left out in every version"
        )
    for one in material.sets:
        clips = [clip for clip in one.clips if clip.speaker in voices.names]
        scores = similarity_scores(clips, *embed_all(encoder, clips), voices)
        for name, own in scores.items():
            opinions.add(metrics[name], one, own)
        if one.group == CONVERSATION:
            _slope(opinions, one, scores["speaker_similarity"], encoder.evaluator)
        done()
    return opinions


def reference_voices(material: VoiceMaterial, encoder: SpeakerEncoder, opinions: Opinions) -> Voices:
    """Mean voice of every known speaker's train recordings, and of every unseen one's prompt."""
    turns: dict[str, list[Turn]] = {}
    for turn in material.corpus.turns("train"):
        if SHORTEST_RELIABLE <= turn.duration <= LONGEST_REFERENCE and not turn.overlap:
            if turn.speaker in material.known:
                turns.setdefault(turn.speaker, []).append(turn)
    drawn = {name: chosen(own, REFERENCES, material.seed) for name, own in turns.items()}
    references: dict[str, list[np.ndarray]] = {}
    for name, own in [*drawn.items(), *material.prompts.items()]:
        for turn in own:
            try:
                references.setdefault(name, []).append(turn_audio(material.corpus, turn))
            except ValueError as error:
                opinions.missing.append(f"reference recording {turn.id} of {name}: {error}")
    voices = mean_voices(encoder, references)
    opinions.details["reference_voices"] = {name: len(references[name]) for name in voices.names}
    return voices


def _slope(opinions: Opinions, one: ClipSet, scores: Sequence[Score], evaluator: str) -> None:
    """Least-squares slope of the main voice's similarity over the turns of the conversation."""
    material = opinions.material
    recorded = material.of(CONVERSATION, RECORDING)
    assert recorded is not None
    values = {score.clip: score.value for score in scores}
    points, lost = [], 0
    for place, (clip, original) in enumerate(zip(one.clips, recorded.clips, strict=True)):
        if clip.speaker != material.known[0] or original.duration < SHORTEST_RELIABLE:
            continue
        value = values.get(clip.id) if clip.duration >= SHORTEST_RELIABLE else None
        if value is None:
            lost += 1
        else:
            points.append((float(place), value))
    opinions.details.setdefault("character", {})[one.version] = points
    found = drift([points], repeats=material.repeats, seed=material.seed)
    if found is None:
        return
    info = MetricInfo(
        name="character_drift",
        title="Drift of the voice",
        area="speaker",
        unit="cosine per turn",
        direction="nearer_to_recording",
        evaluator=evaluator,
        definition="least-squares slope of the main voice's similarity over the turns of one conversation "
        f"that last {SHORTEST_RELIABLE} s; interval by bootstrap of these turns",
    )
    entry = summarise_groups(
        info,
        [found.slope],
        lambda values: values[0],
        condition=one.version,
        subset=one.group,
        n_in=len(points) + lost,
        failures={f"not judged, or spoken in less than {SHORTEST_RELIABLE} s": lost} if lost else None,
    )
    opinions.entries.append({**entry, "mean": found.slope, "ci95": found.ci95})


# Longest first, so that two workers finish together.
JUDGES: dict[str, Judge] = {
    "word error rate": words_heard,
    "distillMOS": naturalness_heard,
    "speaker similarity": voice_heard,
}
