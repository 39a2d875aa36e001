"""Twins: the same text by two voices, and the share of equal codes along it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csm.data.manifest import Corpus, Turn
from csm.evaluation.core.metric import Score, scored
from csm.evaluation.core.statistics import seed_for
from csm.evaluation.metrics.coded_clips import CodedClip, clip_of

#: End of the name of a conversation that repeats another one's texts by other speakers.
TWIN = "-twin"


def twin_turns(
    corpus: Corpus, most: int, splits: Sequence[str] = ("validation", "test")
) -> list[tuple[Turn, Turn]]:
    """Returns pairs of turns with one text and two speakers, of conversations named NAME and NAME-twin."""
    turns = {(turn.conversation, turn.index): turn for split in splits for turn in corpus.turns(split)}
    pairs = []
    for (conversation, index), turn in sorted(turns.items()):
        twin = turns.get((conversation + TWIN, index))
        if twin is not None and twin.text == turn.text:
            pairs.append((turn, twin))
    return pairs[:most]


def equal_codes(
    pairs: Sequence[tuple[CodedClip, CodedClip]],
    ends: Mapping[str, Float[Tensor, " L"]],
    frame_rate: float,
    codebook: int,
    *,
    seed: int | None = None,
) -> list[Score]:
    """Scores the share of a text's symbols at whose middle both voices have the same code.

    Args:
        pairs: Clips of one text.
        ends: Turn id -> end of each symbol in seconds.
        frame_rate: Frames a second.
        codebook: Codebook that is compared.
        seed: Seed of the control, which compares each symbol with a random one of the other voice; None for
            the measure.
    """
    scores = []
    generator = None if seed is None else torch.Generator().manual_seed(seed_for(seed, "twins") % 2**63)
    for first, second in pairs:
        left, right = (
            codes_at_symbols(clip, ends[clip.turn.id], frame_rate, codebook) for clip in (first, second)
        )
        if generator is not None:
            right = right[torch.randperm(len(right), generator=generator)]
        scores.append(scored(clip_of(first.turn), float((left == right).float().mean()), weight=len(left)))
    return scores


def codes_at_symbols(
    clip: CodedClip, ends: Float[Tensor, " L"], frame_rate: float, codebook: int
) -> Int[Tensor, " L"]:
    """Returns the code at the middle of each symbol; the first and the last one are silence and left out."""
    middles = ((ends[:-2] + ends[1:-1]) / 2 * frame_rate).long()
    return clip.codes[codebook, middles.clamp(max=clip.codes.shape[1] - 1)]
