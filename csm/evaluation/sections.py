"""The sections that judge single clips: words, voice, naturalness, prosody, codec, waiting."""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np

from csm.evaluation import codec as codec_measures
from csm.evaluation import intelligibility as words
from csm.evaluation import latency as waits
from csm.evaluation import naturalness
from csm.evaluation import prosody as tunes
from csm.evaluation import speaker as voices_of
from csm.evaluation.distributions import wasserstein_1
from csm.evaluation.findings import Findings
from csm.evaluation.judge import Clip
from csm.evaluation.material import TURNS, Material, chosen, turn_audio
from csm.evaluation.statistics import MetricInfo, Score, failed, judged, summarise_groups

LONGEST_REFERENCE = 6.0  # seconds; longer ones cost time and add little to a mean voice


def intelligibility(material: Material) -> Findings:
    """Word and character error rates; what was heard stays beside every clip."""
    findings = Findings(material)
    recogniser = words.WhisperRecogniser(material.options.asr)
    metrics = words.intelligibility_metrics(recogniser.evaluator)
    for subset, condition, clips in material.sets():
        hearings = words.transcribe_all(recogniser, clips)
        for name, kind in (
            ("wer", {}),
            ("wer_capped", {"capped": True}),
            ("cer", {"characters": True}),
        ):
            scores = words.error_scores(clips, hearings, **kind)
            findings.add(metrics[name], scores, condition=condition, subset=subset)
    return findings


def opinions(
    material: Material, name: str, load: Callable[[], naturalness.Dnsmos | naturalness.DistillMos]
) -> Findings:
    """One learned judge of naturalness over every clip."""
    findings = Findings(material)
    judge = load()
    info = naturalness.naturalness_metrics(judge.evaluator, judge.evaluator)[name]
    for subset, condition, clips in material.sets():
        scores = naturalness.mean_opinion_scores(judge, clips)
        findings.add(info, scores, condition=condition, subset=subset)
    return findings


def reference_voices(
    material: Material, encoder: voices_of.SpeakerEncoder, findings: Findings
) -> voices_of.Voices | None:
    """Mean voice of every speaker of the train split who has recordings of 1.6 to 6 s."""
    if material.corpus is None:
        findings.missing.append("speaker similarity needs the corpus: give --corpus FOLDER")
        return None
    turns: dict[str, list] = {}
    for turn in material.corpus.turns("train"):
        if voices_of.SHORTEST_RELIABLE <= turn.duration <= LONGEST_REFERENCE and not turn.overlap:
            turns.setdefault(turn.speaker, []).append(turn)
    references: dict[str, list[np.ndarray]] = {}
    for name, own in turns.items():
        for turn in chosen(own, material.options.references, material.options.seed):
            try:
                references.setdefault(name, []).append(turn_audio(material.corpus, turn))
            except ValueError as error:
                findings.missing.append(f"reference recording {turn.id} of {name}: {error}")
    voices = voices_of.mean_voices(encoder, references)
    if not voices.names:
        findings.missing.append("speaker similarity: the train split has no recording of 1.6 s")
        return None
    findings.details["reference_voices"] = {name: len(references[name]) for name in voices.names}
    return voices


def speaker(material: Material) -> Findings:
    """Similarity to the speaker's mean voice, nearest voice, and character over the turns of dialogues."""
    findings = Findings(material)
    encoder = voices_of.SpeakerEncoder()
    voices = reference_voices(material, encoder, findings)
    if voices is None:
        return findings
    metrics = voices_of.speaker_metrics(encoder.evaluator, len(voices.names))
    unknown = sorted({clip.speaker for _, _, clips in material.sets() for clip in clips} - set(voices.names))
    if unknown:
        findings.missing.append(
            f"speaker similarity of {', '.join(unknown)}: no recording of 1.6 to 6 s in the train split; "
            "their clips are left out in every version"
        )
    for subset, condition, everyone in material.sets():
        clips = [clip for clip in everyone if clip.speaker in voices.names]
        scores = voices_of.similarity_scores(clips, *voices_of.embed_all(encoder, clips), voices)
        for name, own in scores.items():
            findings.add(metrics[name], own, condition=condition, subset=subset)
        if subset == TURNS:
            _character(findings, metrics, clips, scores["speaker_similarity"], condition)
    return findings


def _character(
    findings: Findings,
    metrics: dict[str, MetricInfo],
    clips: list[Clip],
    scores: list[Score],
    condition: str,
) -> None:
    """Similarity turn by turn, and its slope; eligible are turns whose recording is long enough."""
    material = findings.material
    recorded = {clip.id: clip.duration for clip in material.clips[TURNS].get("recording", [])}
    turns = {utterance.id: utterance for utterance in material.utterances[TURNS]}
    eligible: list[Score] = []
    series: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for clip, score in zip(clips, scores, strict=True):
        utterance = turns[clip.id]
        if (recorded.get(clip.id) or clip.duration) < voices_of.SHORTEST_RELIABLE:
            continue
        if score.value is not None and clip.duration < voices_of.SHORTEST_RELIABLE:
            score = Score(
                clip=score.clip,
                conversation=score.conversation,
                value=None,
                reason=f"spoken in less than {voices_of.SHORTEST_RELIABLE} s, recorded in more",
            )
        eligible.append(score)
        if score.value is not None:
            series.setdefault((utterance.dialogue, utterance.speaker), []).append(
                (float(utterance.turn), score.value)
            )
    info = metrics["character_similarity"]
    findings.add(info, eligible, condition=condition, subset=TURNS)
    options = material.options
    drift = voices_of.drift(list(series.values()), repeats=options.repeats, seed=options.seed)
    findings.details.setdefault("character", {})[condition] = {
        "series": [
            {"dialogue": dialogue, "speaker": name, "points": points}
            for (dialogue, name), points in series.items()
        ],
        "minimum": min((value for points in series.values() for _, value in points), default=None),
    }
    if drift is not None:
        findings.entries.append(_drift_entry(findings, info, drift, len(eligible), condition))


def _drift_entry(
    findings: Findings, info: MetricInfo, drift: voices_of.Drift, n_in: int, condition: str
) -> dict:
    slope = MetricInfo(
        name="character_drift",
        title="Drift of the voice",
        area="speaker",
        unit="cosine per turn",
        direction="nearer_to_recording",
        evaluator=info.evaluator,
        sample_rate=info.sample_rate,
        definition="common slope of similarity over turn number, each voice with its own level; "
        "interval by bootstrap of turns inside each voice",
    )
    lost = n_in - drift.turns
    entry = summarise_groups(
        slope,
        [drift.slope],
        lambda values: values[0],
        condition=condition,
        subset=TURNS,
        n_in=n_in,
        failures={"not judged, or the only turn of its voice": lost} if lost else None,
    )
    return {**entry, "mean": drift.slope, "ci95": drift.ci95, "conversations": drift.voices}


def codec(material: Material, name: str) -> Findings:
    """One measure of resynthesis against the recording it was made from."""
    findings = Findings(material)
    info = codec_measures.codec_metrics()[name]
    for subset, conditions in material.clips.items():
        pairs = list(zip(conditions["recording"], conditions["resynthesis"], strict=False))
        scores = codec_measures.paired_scores(pairs, codec_measures.PAIR_MEASURES[name])
        findings.add(info, scores, condition="resynthesis", subset=subset)
    return findings


def prosody(material: Material) -> Findings:
    """Pitch statistics of all; resynthesis against recording by frame; generated by distribution."""
    findings = Findings(material)
    metrics = tunes.prosody_metrics()
    for subset, conditions in material.clips.items():
        contours = {condition: tunes.clip_contours(clips) for condition, clips in conditions.items() if clips}
        for condition, shapes in contours.items():
            for name, scores in tunes.statistic_scores(conditions[condition], shapes).items():
                findings.add(metrics[name], scores, condition=condition, subset=subset)
        if "recording" not in contours:
            continue
        if "resynthesis" in contours:
            both = list(zip(contours["recording"], contours["resynthesis"], strict=True))
            scored = tunes.paired_scores(conditions["recording"], conditions["resynthesis"], both)
            for name, scores in scored.items():
                findings.add(metrics[name], scores, condition="resynthesis", subset=subset)
        for condition in ("resynthesis", "generated"):
            if condition in contours:
                _distances(
                    findings,
                    conditions[condition],
                    contours["recording"],
                    contours[condition],
                    condition,
                    subset,
                )
    return findings


def _distances(
    findings: Findings,
    clips: list[Clip],
    real: list[tunes.Contour | str],
    spoken: list[tunes.Contour | str],
    condition: str,
    subset: str,
) -> None:
    """Wasserstein-1 distances from the recordings, over frames, clips or pauses pooled."""
    options = findings.material.options
    groups: dict[str, list[tuple[tunes.Contour, tunes.Contour]]] = {}
    failures: dict[str, int] = {}
    for clip, first, second in zip(clips, real, spoken, strict=True):
        if isinstance(first, str) or isinstance(second, str):
            reason = second if isinstance(second, str) else f"recording: {first}"
            failures[reason] = failures.get(reason, 0) + 1
        else:
            groups.setdefault(clip.conversation, []).append((first, second))
    for info, values in tunes.distance_metrics():

        def distance(
            picked: list[list[tuple[tunes.Contour, tunes.Contour]]],
            values: Callable[[tunes.Contour], np.ndarray] = values,
        ) -> float | None:
            pairs = [pair for group in picked for pair in group]
            left = np.concatenate([values(first) for first, _ in pairs])
            right = np.concatenate([values(second) for _, second in pairs])
            return wasserstein_1(left, right) if left.size and right.size else None

        findings.entries.append(
            summarise_groups(
                info,
                list(groups.values()),
                distance,
                condition=condition,
                subset=subset,
                n_in=len(clips),
                failures=failures,
                repeats=min(options.repeats, 200),  # each repeat sorts every frame again
                seed=options.seed,
            )
        )


def waiting(material: Material) -> Findings:
    """Time to first audible sound, leading silence and real-time factor of what was generated."""
    findings = Findings(material)
    metrics = waits.latency_metrics(material.hardware)
    for subset, conditions in material.clips.items():
        clips = conditions["generated"]
        if not clips:
            continue
        timings = [utterance.timing for utterance in material.utterances[subset]]
        for name, scores in waits.latency_scores(clips, timings).items():
            findings.add(metrics[name], scores, condition="generated", subset=subset)
            values = [score.value for score in scores if score.value is not None]
            if values and findings.entries:
                findings.entries[-1]["quantiles"] = waits.quantiles(values)
        lengths = [
            judged(clip.id, clip.conversation, clip.duration / recording.duration)
            if clip.duration
            else failed(clip.id, clip.conversation, clip.reason or "no audio")
            for clip, recording in zip(clips, conditions["recording"], strict=False)
            if recording.duration
        ]
        findings.add(waits.length_metric(), lengths, condition="generated", subset=subset)
    return findings


def codebooks(material: Material) -> Findings:
    """Usage, efficiency and bit rate of the codebooks, from ``codes/codebooks.json``."""
    findings = Findings(material)
    path = material.run / "codes" / "codebooks.json"
    if not path.is_file():
        findings.missing.append(f"codebook usage needs {path.parent.name}/{path.name} of the run")
        return findings
    statistics = json.loads(path.read_text(encoding="utf-8"))
    summary = codec_measures.codebook_summary(statistics)
    findings.details["codebooks"] = {
        "usage": [float(share) for share in codec_measures.usage_shares(statistics)],
        "perplexity": statistics["perplexity"],
        "dead": statistics["dead"],
        "codebook_size": statistics["codebook_size"],
    }
    for info in codec_measures.codebook_metrics():
        findings.entries.append(
            summarise_groups(
                info,
                [summary[info.name]],
                lambda values: values[0],
                condition="resynthesis",
                subset="corpus",
                n_in=int(summary["codebooks"]),
            )
        )
    return findings
