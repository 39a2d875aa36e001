"""What the codes carry: letters and speakers by linear probes, and speaker verification, as tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from csm.data.manifest import Corpus, Turn
from csm.data.utterances import spell
from csm.evaluation.core.metric import Score
from csm.evaluation.core.report import Cell, Table
from csm.evaluation.core.statistics import (
    bootstrap_repeats,
    by_conversation,
    interval,
    pooled_mean,
    seed_for,
)
from csm.evaluation.metrics.coded_clips import STREAMS, ProbeConfig, encode_clips
from csm.evaluation.metrics.letter_probe import character_scores
from csm.evaluation.metrics.speaker import SpeakerEncoder
from csm.evaluation.metrics.speaker_probe import speaker_scores
from csm.evaluation.metrics.verification import (
    VerificationConfig,
    empty_table,
    speaker_verification,
    with_interval,
)
from csm.system.log import progress_of
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.training.losses import CTC_OUTPUTS_PER_FRAME

TITLE = "Letters and speakers in the codes (linear probes of our own)"
HEADER = ("codebooks", "character error rate", "clips", "speaker accuracy", "clips")


def what_the_codes_carry(
    tokenizer: ConversationalRVQ,
    corpus: Corpus,
    *,
    probes: ProbeConfig | None = None,
    verification: VerificationConfig | None = None,
    encoder: SpeakerEncoder | None = None,
) -> list[Table]:
    """Measures letters and speakers in the codes by linear probes, and the speaker embedding's equal error
    rate.

    On one thread whatever the machine, so that the figures do not depend on it. A table that this corpus is
    too small
    for has no rows, and its note says why.

    Args:
        tokenizer: Tokenizer in eval mode.
        corpus: Corpus with train, validation and test turns that have texts.
        probes, verification: Sizes; None for the defaults.
        encoder: Embedding beside the tokenizer's; None for Resemblyzer, where it is installed.
    """
    try:
        first = probe_table(tokenizer, corpus, probes)
    except ValueError as error:
        first = Table(TITLE, HEADER, [], f"Not measured: {error}.")
    try:
        second = speaker_verification(tokenizer, corpus, verification, encoder=encoder)
    except ValueError as error:
        second = empty_table(str(error))
    return [first, second]


def probe_table(tokenizer: ConversationalRVQ, corpus: Corpus, config: ProbeConfig | None = None) -> Table:
    """Trains both probes on the semantic vectors, the acoustic ones and all, beside what guessing reaches.

    Raises:
        ValueError: There are too few clips to train or test on.
    """
    config = config or ProbeConfig()
    train, by_text, by_speaker = _draw(corpus, config)
    turns = list({turn.id: turn for turn in (*train, *by_text, *by_speaker)}.values())
    clips = {clip.turn.id: clip for clip in encode_clips(tokenizer, corpus, turns)}
    spoken = [clips[turn.id] for turn in train]
    known = {turn.speaker for turn in by_speaker}
    rows: list[tuple[Cell, ...]] = []
    for stream in progress_of(STREAMS, "probes", len(STREAMS), unit="stream"):
        letters = character_scores(spoken, [clips[t.id] for t in by_text], stream, config)
        voices = speaker_scores(
            [clip for clip in spoken if clip.turn.speaker in known],
            [clips[t.id] for t in by_speaker],
            stream,
            config,
        )
        cells = [_cells(scores, name, config) for name, scores in (("letters", letters), ("voices", voices))]
        rows.append((Cell(stream), *cells[0], *cells[1]))
    commonest = max(sum(turn.speaker == name for turn in by_speaker) for name in known) / len(by_speaker)
    guesses = ("guessing", "1.000 (no letters)", "-", f"{commonest:.3f} (the commonest speaker)", "-")
    rows.append(tuple(map(Cell, guesses)))
    note = (
        f"Linear probes trained by ourselves (seed {config.seed}) on {len(train)} clips of the train split, "
        f"up to {config.max_seconds:g} s, drawn evenly over speakers. Letters: one layer over "
        f"{config.window} frames' vectors, {CTC_OUTPUTS_PER_FRAME} CTC outputs a frame, {config.steps} "
        f"steps of Adam, decoded by argmax, tested on {len(by_text)} test clips whose lines are not in the "
        f"train split. Speakers: logistic regression on mean and deviation over a clip, tested on "
        f"{len(by_speaker)} clips of validation and test, {len(known)} speakers, up to "
        f"{config.tested_per_speaker} clips each. Intervals resample conversations. A probe with a "
        f"high error does not show that the codes lack it: one that is not linear may find more."
    )
    return Table(TITLE, HEADER, rows, note)


def _draw(corpus: Corpus, config: ProbeConfig) -> tuple[list[Turn], list[Turn], list[Turn]]:
    """Draws turns to train on, to test letters on and to test speakers on."""
    generator = np.random.default_rng([config.seed, 0])

    def shuffled(split: str) -> list[Turn]:
        turns = [t for t in corpus.turns(split) if t.duration <= config.max_seconds]
        return [turns[i] for i in generator.permutation(len(turns))]

    def evenly(turns: Sequence[Turn]) -> list[tuple[int, Turn]]:
        """Every turn with its number among its speaker's, ordered by it."""
        counts: Counter[str] = Counter()
        numbered = []
        for turn in turns:
            numbered.append((counts[turn.speaker], turn))
            counts[turn.speaker] += 1
        return sorted(numbered, key=lambda pair: pair[0])

    pools = {split: shuffled(split) for split in ("train", "validation", "test")}
    train = [turn for _, turn in evenly(pools["train"])][: config.train_clips]
    # Lines come back in other conversations: a tokenizer trained on their texts may have memorised them.
    familiar = {tuple(spell(turn.text)) for turn in corpus.turns("train")}
    by_text = [t for t in pools["test"] if spell(t.text) and tuple(spell(t.text)) not in familiar]
    counts = Counter(turn.speaker for turn in train)
    known = {name for name, count in counts.items() if count >= config.fewest_clips}
    candidates = [t for t in (*pools["validation"], *pools["test"]) if t.speaker in known]
    by_speaker = [turn for number, turn in evenly(candidates) if number < config.tested_per_speaker]
    if not by_text or len({turn.speaker for turn in by_speaker}) < 2:
        raise ValueError(
            f"{corpus.root} has, up to {config.max_seconds:g} s, {len(by_text)} test clips with new lines "
            f"and {len(by_speaker)} clips to test speakers on: expected one at least, and two speakers with "
            f"{config.fewest_clips} of {len(train)} training clips each; raise train_clips or lower "
            f"fewest_clips"
        )
    return train, by_text[: config.tested_texts], by_speaker


def _cells(scores: Sequence[Score], name: str, config: ProbeConfig) -> tuple[Cell, Cell]:
    """Makes cells of the pooled mean with its interval over conversations, and of the number of clips."""
    groups, mean = by_conversation(scores), pooled_mean(scores, None)
    assert mean is not None, "every clip has a value"
    draws = bootstrap_repeats(
        groups,
        lambda picked: pooled_mean([score for group in picked for score in group], None),
        repeats=config.repeats,
        seed=seed_for(config.seed, name),
    )
    return with_interval(mean, interval(draws) if len(groups) > 1 else None), Cell(str(len(scores)))
