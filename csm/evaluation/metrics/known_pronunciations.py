"""How often the pronunciation scorer is right: recordings with their words as said, or a phone exchanged.

The contrasts are those of the words that are tested. A recording's phones are those of the lexicon, which
real speakers do not always say: the share is a lower bound. The control is another recording with the same
words: what the phones alone decide.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.evaluation.core.clips import EVALUATION_RATE
from csm.evaluation.core.metric import MetricInfo, Score, Scores, failed, scored
from csm.evaluation.core.report import Entry
from csm.evaluation.core.runner import RunnerOptions
from csm.evaluation.core.statistics import summarise
from csm.evaluation.metrics.coded_clips import clip_of
from csm.evaluation.metrics.pronunciation import EVALUATOR, PronunciationScorer, Words, words_of

KNOWN, ANOTHER = "recording", "another recording"
GROUP = "known speech"
Contrast = tuple[str, str]


class Exchange(NamedTuple):
    """A turn and its words, the first as they are said, the second with one phone exchanged."""

    turn: Turn
    said: Words
    changed: Words
    contrast: Contrast


def contrasts_of(readings: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[Contrast]:
    """Returns the phones that alone tell apart the readings of some word, each pair once."""
    found = set()
    for first, second in readings:
        differing = [pair for pair in zip(first, second, strict=False) if pair[0] != pair[1]]
        if len(first) == len(second) and len(differing) == 1:
            found.add((min(differing[0]), max(differing[0])))
    return sorted(found)


def draw_exchanges(turns: Sequence[Turn], contrasts: Sequence[Contrast], seed: int) -> list[Exchange]:
    """Exchanges one phone of each turn; contrasts and their directions alternate where the turns allow it."""
    generator = np.random.default_rng(seed)
    drawn: dict[tuple[str, str], int] = {pair: 0 for a, b in contrasts for pair in ((a, b), (b, a))}
    exchanges = []
    for turn in turns:
        words = words_of(turn.text)
        places = [
            (word, phone, pair)
            for word, phones in enumerate(words)
            for phone, said in enumerate(phones)
            for pair in drawn
            if pair[0] == said
        ]
        if not places:
            continue
        fewest = min(drawn[pair] for _, _, pair in places)
        rarest = [place for place in places if drawn[place[2]] == fewest]
        word, phone, pair = rarest[int(generator.integers(len(rarest)))]
        drawn[pair] += 1
        other = (*words[word][:phone], pair[1], *words[word][phone + 1 :])
        changed = [*words[:word], other, *words[word + 1 :]]
        exchanges.append(Exchange(turn, words, changed, (min(pair), max(pair))))
    return exchanges


def known_scores(
    scorer: PronunciationScorer, corpus: Corpus, exchanges: Sequence[Exchange]
) -> dict[str, list[Score]]:
    """Scores 1 where the words as said are the likelier ones; by condition, `KNOWN` and `ANOTHER`.

    A recording that is too short for another one's words is left out of that control.
    """
    steps = [scorer.features(read_turn(corpus, one.turn, EVALUATION_RATE)) for one in exchanges]
    found: dict[str, list[Score]] = {KNOWN: [], ANOTHER: []}
    for place, one in enumerate(exchanges):
        for condition, sound in ((KNOWN, steps[place]), (ANOTHER, steps[place - 1])):
            clip = clip_of(one.turn)
            try:
                right = scorer.ratio(sound, one.said, one.changed) > 0
            except ValueError as error:
                if condition == KNOWN:
                    found[condition].append(failed(clip, str(error)))
                continue
            found[condition].append(scored(clip, float(right), detail=" / ".join(one.contrast)))
    return found


def known_entries(scores: dict[str, list[Score]], options: RunnerOptions) -> list[Entry]:
    """Summarises `known_scores`."""
    info = MetricInfo(
        name="pronunciation_found",
        title="Pronunciation found",
        area="pronunciation",
        unit="share of recordings",
        direction="higher",
        worst=0.0,
        evaluator=EVALUATOR,
        definition="share of recordings in which the words as said are likelier than with one phone "
        "exchanged; chance is 0.5",
        sample_rate=EVALUATION_RATE,
    )
    return [
        summarise(
            Scores(info=info, scores=own),
            group=GROUP,
            condition=condition,
            repeats=options.repeats,
            seed=options.seed,
        )
        for condition, own in scores.items()
        if own
    ]
