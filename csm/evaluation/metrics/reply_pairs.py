"""Real (turn, reply) pairs of a corpus: the scale of style and the context probe are learned from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.evaluation.core.clips import EVALUATION_RATE
from csm.evaluation.core.draws import draw_turns
from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.metrics.context_probe import ContextProbe, LabelledPair, train_probe
from csm.evaluation.metrics.contours import contour
from csm.evaluation.metrics.style import StyleScale, style, style_scale

StyledTurn = tuple[Turn, np.ndarray]  # a turn and its raw style [7]


def learn_from_replies(corpus: Corpus, options: RunnerOptions, most: int) -> tuple[StyleScale, ContextProbe]:
    """Learns scale and probe from the train split; the probe is tested on the other splits.

    Args:
        corpus: Corpus with the turns.
        options: Seed of the draw; seed and repeats of the bootstrap.
        most: Most real pairs to train on; half as many are tested on.

    Raises:
        NotMeasurable: There are too few turns or pairs.
    """
    train = real_pairs(corpus, ("train",), most, options.seed)
    others = real_pairs(corpus, ("validation", "test"), most // 2, options.seed)
    raw = {turn.id: (turn.speaker, value) for pair in train for turn, value in pair}
    scale = style_scale([raw[key] for key in sorted(raw)])
    probe = train_probe(
        _labelled(train, scale), _labelled(others, scale), seed=options.seed, repeats=options.repeats
    )
    return scale, probe


def _labelled(pairs: Sequence[tuple[StyledTurn, StyledTurn]], scale: StyleScale) -> list[LabelledPair]:
    return [
        (
            reply.conversation,
            reply.speaker,
            scale.standardised(before, context.speaker),
            scale.standardised(after, reply.speaker),
        )
        for (context, before), (reply, after) in pairs
    ]


def real_pairs(
    corpus: Corpus, splits: Sequence[str], most: int, seed: int
) -> list[tuple[StyledTurn, StyledTurn]]:
    """Draws (turn, reply) pairs of two different speakers with their raw styles; bad clips are left out."""
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
                styles[turn.id] = turn_style(corpus, turn)
            except ValueError:
                styles[turn.id] = None  # one training example less; no clip is scored here
        return styles[turn.id]

    pairs = []
    for reply in draw_turns(replies, most, seed):
        context = before[reply.id]
        first, second = style_of(context), style_of(reply)
        if first is not None and second is not None:
            pairs.append(((context, first), (reply, second)))
    return pairs


def turn_style(corpus: Corpus, turn: Turn) -> np.ndarray:
    """Computes the raw style [7] of a recorded turn.

    Raises:
        ValueError: The recording cannot be read, or is too short or unvoiced.
    """
    return style(contour(read_turn(corpus, turn, EVALUATION_RATE)[0].numpy()))
