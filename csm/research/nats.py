"""Losses of held-out stretches by part: what a trained model does not predict, in nats per target."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from csm.evaluation.core.metric import MetricInfo, Score, Scores
from csm.losses import ConversationTargets, conversational_loss
from csm.model import CSMModel
from csm.research.material import HeldOut
from csm.sequences.packed_batch import RowBatch
from csm.sequences.turns import TurnFrames
from csm.system.threads import one_thread

#: Part of the conversational loss -> title, unit, and the divisor whose size weighs a stretch.
PARTS: Mapping[str, tuple[str, str, str]] = {
    "codebook0": ("Nats of codebook 0 and the end", "nats per frame", "voice_count"),
    "semantic": ("Nats of the other semantic codebooks", "nats per code", "frame_count"),
    "acoustic": ("Nats of the acoustic codebooks", "nats per code", "frame_count"),
    "text": ("Nats of the text that is written", "nats per text id", "text_count"),
    "letters": ("Nats of the letters that are spelled", "nats per letter", "letter_count"),
    "duration": ("Error of a turn's log frames", "log frames", "turn_count"),
    "pace": ("Error of the log frames of a text id", "log frames", "pace_count"),
    "pitch": ("Error of the next frame's log F0", "smooth L1 of log Hz", "voice_count"),
    "voicing": ("Nats of the next frame's voicing", "nats per frame", "voice_count"),
    "energy": ("Error of the next frame's log energy", "smooth L1", "voice_count"),
    "latent": ("Squared distance to the next latent", "variances of codebook 0", "frame_count"),
    "refined": ("The same given code 0", "variances of codebook 0", "frame_count"),
}


def part_info(part: str) -> MetricInfo:
    """Describes the metric of a part of the loss."""
    title, unit, _ = PARTS[part]
    return MetricInfo(
        name=part,
        title=title,
        area="losses",
        unit=unit,
        direction="lower",
        evaluator="csm.research.nats",
        definition=f"part {part!r} of the conversational loss on held-out turns, before its weight",
    )


@one_thread()
@torch.no_grad()
def part_scores(
    model: CSMModel,
    stretches: Sequence[HeldOut],
    parts: Sequence[str],
    *,
    pasts: Sequence[Sequence[TurnFrames]] | None = None,
    vectors: Tensor | None = None,
) -> Iterator[Scores]:
    """Yields the scores of parts of the loss, one score a stretch, weighted by its targets.

    A stretch without targets of a part is left out; a part that the model lacks gives no scores.

    Args:
        model: Model in eval mode.
        stretches: Held-out turns.
        parts: Names, of PARTS.
        pasts: What each stretch's memory holds instead of its own past.
        vectors: Vectors of the codes in latents, for a model that predicts these.
    """
    found: dict[str, list[Score]] = {part: [] for part in parts}
    for place, stretch in enumerate(stretches):
        past = stretch.chunk.past if pasts is None else pasts[place]
        batch = rows_of(model, stretch, past).to(model.audio_embedding.weight.device)
        targets = ConversationTargets.of(batch, model.config.semantic_codebooks, vectors)
        values = conversational_loss(model(batch=batch), targets).parts
        counts = _counts(batch, targets)
        for part in parts:
            if part in values and counts[PARTS[part][2]]:
                weight = counts[PARTS[part][2]]
                found[part].append(
                    Score(
                        clip=stretch.id,
                        conversation=stretch.conversation,
                        value=float(values[part]),
                        weight=weight,
                    )
                )
    yield from (Scores(info=part_info(part), scores=scores) for part, scores in found.items() if scores)


def rows_of(model: CSMModel, stretch: HeldOut, past: Sequence[TurnFrames]) -> RowBatch:
    """Returns the rows of a stretch, all of whose turns are targets."""
    builder = model.new_rows()
    builder.begin_sequence(past)
    for turn, transcribed, length, trained in stretch.chunk.turns:
        if transcribed:
            builder.add_transcribed(turn, train=trained)
        else:
            builder.add_spoken(turn, length=length, train=trained)
    return builder.build()


def _counts(batch: RowBatch, targets: ConversationTargets) -> dict[str, float]:
    """Returns the numbers of targets, which `ConversationTargets` raises to at least 1."""
    counts: dict[str, Any] = {
        "voice_count": len(targets.codebook0),
        "frame_count": targets.frames,
        "text_count": len(targets.text),
        "turn_count": len(targets.duration),
        "pace_count": len(targets.pace),
        "letter_count": sum(targets.letter_sizes),
    }
    return {name: float(count) for name, count in counts.items()}


def of_another(stretches: Sequence[HeldOut]) -> list[Sequence[TurnFrames]]:
    """Returns for each stretch the past of another conversation, half the list away or the next beyond it.

    Raises:
        ValueError: All stretches are of one conversation.
    """
    count = len(stretches)
    pasts = []
    for place, stretch in enumerate(stretches):
        order = [(place + count // 2 + step) % count for step in range(count)]
        others = (stretches[other] for other in order)
        other = next((one for one in others if one.conversation != stretch.conversation), None)
        if other is None:
            raise ValueError("all held-out turns are of one conversation: expected two to exchange memories")
        pasts.append(other.chunk.past)
    return pasts
