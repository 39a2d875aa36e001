"""The section on feeling: styles of replies and contexts, from the run and from the corpus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from csm.data.manifest import Corpus, Turn
from csm.evaluation import emotion as feeling
from csm.evaluation.findings import Findings
from csm.evaluation.judge import Clip
from csm.evaluation.material import LINES, TURNS, Material, chosen, turn_audio
from csm.evaluation.prosody import Contour, clip_contours, contour
from csm.evaluation.speech_folder import Utterance
from csm.evaluation.statistics import Score, failed, judged, summarise_groups

Styled = np.ndarray | str  # standardised style [7], or the reason why there is none
LabelledPair = tuple[str, str, np.ndarray, np.ndarray]


def emotion(material: Material) -> Findings:
    """Style of replies against human ones, and their fit to the turn before."""
    findings = Findings(material)
    if material.corpus is None:
        findings.missing.append("emotional coherence needs the corpus: give --corpus FOLDER")
        return findings
    try:
        scale, probe = learn(material, material.corpus)
    except ValueError as error:
        findings.missing.append(f"emotional coherence: {error}")
        return findings
    metrics = feeling.emotion_metrics(probe.evaluator)
    for subset, conditions in material.clips.items():
        styles = {
            condition: [
                _styled(shape, scale, clip.speaker)
                for shape, clip in zip(clip_contours(clips), clips, strict=True)
            ]
            for condition, clips in conditions.items()
            if clips
        }
        if "recording" in styles:
            _likeness(findings, metrics, subset, conditions, styles)
        for condition, own in styles.items():
            contexts = _contexts(material, scale, subset, own)
            _fit(findings, metrics, probe, subset, condition, conditions[condition], contexts, own)
    return findings


def _styled(shape: Contour | str, scale: feeling.StyleScale, speaker: str) -> Styled:
    if isinstance(shape, str):
        return shape
    try:
        return scale.standardised(feeling.style(shape), speaker)
    except ValueError as error:
        return str(error)


def learn(material: Material, corpus: Corpus) -> tuple[feeling.StyleScale, feeling.ContextProbe]:
    """Scale and probe from real turns of the train split; the probe is measured on the other splits.

    Raises:
        ValueError: too few turns or pairs.
    """
    train = _real_pairs(material, corpus, ("train",), material.options.probe_pairs)
    others = _real_pairs(material, corpus, ("validation", "test"), material.options.probe_pairs // 2)
    raw = {turn.id: (turn.speaker, value) for pair in train for turn, value in pair}
    scale = feeling.style_scale([raw[key] for key in sorted(raw)])

    def labelled(pairs: list[tuple[tuple[Turn, np.ndarray], tuple[Turn, np.ndarray]]]) -> list[LabelledPair]:
        return [
            (
                reply.conversation,
                reply.speaker,
                scale.standardised(before, context.speaker),
                scale.standardised(after, reply.speaker),
            )
            for (context, before), (reply, after) in pairs
        ]

    return scale, feeling.train_probe(labelled(train), labelled(others), seed=material.options.seed)


def _real_pairs(
    material: Material, corpus: Corpus, splits: Sequence[str], most: int
) -> list[tuple[tuple[Turn, np.ndarray], tuple[Turn, np.ndarray]]]:
    """(turn, reply) pairs of two different speakers with their raw styles; bad clips are passed over."""
    before: dict[str, Turn] = {}
    replies = []
    for conversation in corpus.conversations:
        if conversation.split not in splits:
            continue
        for context, reply in zip(conversation.turns, conversation.turns[1:], strict=False):
            if context.speaker != reply.speaker:
                before[reply.id] = context
                replies.append(reply)
    styles: dict[str, np.ndarray | None] = {}

    def style_of(turn: Turn) -> np.ndarray | None:
        if turn.id not in styles:
            try:
                styles[turn.id] = feeling.style(contour(turn_audio(corpus, turn)))
            except ValueError:
                styles[turn.id] = None  # a training example less; nothing is scored here
        return styles[turn.id]

    pairs = []
    for reply in chosen(replies, most, material.options.seed):
        context = before[reply.id]
        first, second = style_of(context), style_of(reply)
        if first is not None and second is not None:
            pairs.append(((context, first), (reply, second)))
    return pairs


def _likeness(
    findings: Findings,
    metrics: dict,
    subset: str,
    conditions: dict[str, list[Clip]],
    styles: dict[str, list[Styled]],
) -> None:
    human = styles["recording"]
    clips = conditions["recording"]
    for condition in ("resynthesis", "generated"):
        if condition in styles:
            scores = [
                _compared(clip, first, second)
                for clip, first, second in zip(clips, human, styles[condition], strict=True)
            ]
            findings.add(metrics["style_cosine"], scores, condition=condition, subset=subset)
            _arousal(findings, metrics, subset, condition, clips, human, styles[condition])
    chance = []
    for number, (clip, own) in enumerate(zip(clips, human, strict=True)):
        same = [
            other
            for place, (who, other) in enumerate(zip(clips, human, strict=True))
            if place != number and who.speaker == clip.speaker and not isinstance(other, str)
        ]
        if not isinstance(own, str) and same:
            mean = float(np.mean([feeling.cosine(own, other) for other in same]))
            chance.append(judged(clip.id, clip.conversation, mean))
    findings.add(metrics["style_cosine"], chance, condition="another human reply", subset=subset)


def _compared(clip: Clip, human: Styled, spoken: Styled) -> Score:
    if isinstance(human, str):
        return failed(clip.id, clip.conversation, f"recording: {human}")
    if isinstance(spoken, str):
        return failed(clip.id, clip.conversation, spoken)
    return judged(clip.id, clip.conversation, feeling.cosine(human, spoken))


def _arousal(
    findings: Findings,
    metrics: dict,
    subset: str,
    condition: str,
    clips: list[Clip],
    human: list[Styled],
    spoken: list[Styled],
) -> None:
    groups: dict[str, list[tuple[float, float]]] = {}
    failures: dict[str, int] = {}
    for clip, first, second in zip(clips, human, spoken, strict=True):
        if isinstance(first, str) or isinstance(second, str):
            reason = second if isinstance(second, str) else f"recording: {first}"
            failures[reason] = failures.get(reason, 0) + 1
        else:
            groups.setdefault(clip.conversation, []).append((feeling.arousal(first), feeling.arousal(second)))

    def concordance(picked: list[list[tuple[float, float]]]) -> float | None:
        pairs = [pair for group in picked for pair in group]
        return feeling.concordance([first for first, _ in pairs], [second for _, second in pairs])

    options = findings.material.options
    findings.entries.append(
        summarise_groups(
            metrics["arousal_concordance"],
            list(groups.values()),
            concordance,
            condition=condition,
            subset=subset,
            n_in=len(clips),
            failures=failures,
            repeats=options.repeats,
            seed=options.seed,
        )
    )


def _contexts(
    material: Material, scale: feeling.StyleScale, subset: str, own: list[Styled]
) -> list[Styled | None]:
    """Style of the turn before each utterance; ``None`` where nobody else spoke before.

    In a dialogue it is the previous turn in the same condition; before a line it is the recording of
    the previous turn of its conversation in the corpus.
    """
    utterances = material.utterances[subset]
    if subset == TURNS:
        place = {(turn.dialogue, turn.turn): number for number, turn in enumerate(utterances)}
        result: list[Styled | None] = []
        for turn in utterances:
            number = place.get((turn.dialogue, turn.turn - 1))
            same = number is None or utterances[number].speaker == turn.speaker
            result.append(None if same or number is None else own[number])
        return result
    return [_before_line(material, scale, line) for line in utterances] if subset == LINES else []


def _before_line(material: Material, scale: feeling.StyleScale, line: Utterance) -> Styled | None:
    assert material.corpus is not None
    for conversation in material.corpus.conversations:
        if conversation.id == line.conversation:
            for context, turn in zip(conversation.turns, conversation.turns[1:], strict=False):
                if turn.index == line.turn and context.speaker != turn.speaker:
                    try:
                        shape = contour(turn_audio(material.corpus, context))
                        return scale.standardised(feeling.style(shape), context.speaker)
                    except ValueError as error:
                        return f"turn before: {error}"
    return None


def _fit(
    findings: Findings,
    metrics: dict,
    probe: feeling.ContextProbe,
    subset: str,
    condition: str,
    clips: list[Clip],
    contexts: list[Styled | None],
    replies: list[Styled],
) -> None:
    fits: list[Score] = []
    swaps: list[Score] = []
    usable: list[tuple[Clip, np.ndarray, np.ndarray]] = []
    for clip, context, reply in zip(clips, contexts, replies, strict=True):
        if context is None:
            continue  # a first turn answers nobody
        if isinstance(reply, str) or isinstance(context, str):
            reason = reply if isinstance(reply, str) else str(context)
            fits.append(failed(clip.id, clip.conversation, reason))
            swaps.append(failed(clip.id, clip.conversation, reason))
            continue
        usable.append((clip, context, reply))
        fits.append(judged(clip.id, clip.conversation, probe.fit(context, reply)))
    changes = feeling.context_swap(probe, [(context, reply) for _, context, reply in usable])
    swaps += [
        judged(clip.id, clip.conversation, change)
        for (clip, _, _), change in zip(usable, changes, strict=True)
    ]
    findings.add(metrics["context_fit"], fits, condition=condition, subset=subset)
    findings.add(metrics["context_swap"], swaps, condition=condition, subset=subset)
