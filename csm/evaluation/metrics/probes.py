"""What the codes carry: phones, words and speakers read from them, as tables with a ceiling and a control."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from csm.data.manifest import Corpus, Turn
from csm.data.phone_labels import NONE, PhoneLabels
from csm.evaluation.core.draws import held_out_speakers
from csm.evaluation.core.metric import Score
from csm.evaluation.core.report import Cell, Table
from csm.evaluation.core.statistics import (
    bootstrap_repeats,
    by_conversation,
    interval,
    pooled_mean,
    seed_for,
)
from csm.evaluation.metrics.coded_clips import UNQUANTIZED, CodedClip, ProbeConfig, named
from csm.evaluation.metrics.head_readers import letters_of_heads, words_of_decoder
from csm.evaluation.metrics.phone_probe import phone_scores, phones_of
from csm.evaluation.metrics.probe_clips import Coded, Tokenizer
from csm.evaluation.metrics.speaker import SpeakerEncoder
from csm.evaluation.metrics.speaker_probe import speaker_scores
from csm.evaluation.metrics.text_reader import word_errors, word_scores
from csm.evaluation.metrics.twins import equal_codes
from csm.evaluation.metrics.verification import (
    VerificationConfig,
    empty_table,
    speaker_verification,
    with_interval,
)
from csm.system.log import log, progress_of
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.semantic.semantic_heads import SemanticHeads

PHONES = "Phones in the codes"
WORDS = "Words read from the codes"
VOICES = "Speakers in the codes"
TWINS = "One text, two voices"


def what_the_codes_carry(
    tokenizer: Tokenizer,
    corpus: Corpus,
    *,
    probes: ProbeConfig | None = None,
    verification: VerificationConfig | None = None,
    encoder: SpeakerEncoder | None = None,
    recogniser: Path | None = None,
    heads: SemanticHeads | None = None,
) -> list[Table]:
    """Measures phones, words and speakers in the codes, and the speaker embedding's equal error rate.

    On one thread whatever the machine, so that the figures do not depend on it. A table that this corpus is
    too small for has no rows, and its note says why.

    Args:
        tokenizer: Tokenizer in eval mode.
        corpus: Corpus with train, validation and test turns that have texts.
        probes, verification: Sizes; None for the defaults.
        encoder: Embedding beside the tokenizer's; None for Resemblyzer, where it is installed.
        recogniser: Folder of a recogniser whose unquantized features are probed beside the codes, and whose
            decoder reads words; None leaves both out.
        heads: Heads that the tokenizer was trained with; None leaves them out.
    """
    config, tables = probes or ProbeConfig(), []
    try:
        coded = Coded(tokenizer, corpus, config, recogniser, heads)
    except ValueError as error:
        tables += [Table(title, header, [], f"Not measured: {error}.") for title, header in HEADERS.items()]
    else:
        for title, make in (
            (PHONES, phone_table),
            (WORDS, word_table),
            (VOICES, voice_table),
            (TWINS, twin_table),
        ):
            try:
                tables.append(make(coded))
            except ValueError as error:
                tables.append(Table(title, HEADERS[title], [], f"Not measured: {error}."))
    if isinstance(tokenizer, ConversationalRVQ):
        try:
            tables.append(speaker_verification(tokenizer, corpus, verification, encoder=encoder))
        except ValueError as error:
            tables.append(empty_table(str(error)))
    return tables


HEADERS = {
    PHONES: ("codebooks", "linear probe", "two-layer probe", "share of the unquantized", "clips"),
    WORDS: ("codebooks", "text reader", "letter head", "recogniser's decoder", "clips"),
    VOICES: ("codebooks", "speaker accuracy", "clips"),
    TWINS: ("codebook", "equal codes", "control: another place of the text", "pairs"),
}


def phone_table(coded: Coded) -> Table:
    """Trains a linear and a two-layer phone probe on every stream."""
    config, train, tested = coded.config, coded.clips(coded.train), coded.clips(coded.tested)
    measured = {}
    for stream in progress_of(coded.streams, "phones", len(coded.streams), unit="stream"):
        measured[stream] = [
            phone_scores(train, tested, coded.rows(stream), coded.labels, config, layers=layers)
            for layers in (1, 2)
        ]
    ceiling = measured.get(UNQUANTIZED)
    rows: list[tuple[Cell, ...]] = []
    for stream, (linear, deep) in measured.items():
        share = "-" if ceiling is None else f"{_mean(deep) / _mean(ceiling[1]):.2f}"
        rows.append(
            (Cell(stream), _cell(linear, config), _cell(deep, config), Cell(share), Cell(str(len(deep))))
        )
    guess = f"{_commonest(tested, coded.labels):.3f}"
    rows.append((Cell("guessing the commonest phone"), Cell(guess), Cell(guess), Cell("-"), Cell("-")))
    note = (
        f"Share of steps of 20 ms whose phone a probe finds from the vectors of three frames. Labels by the "
        f"forced alignment of this corpus, {len(coded.labels.classes)} classes; their errors bound every "
        f"row. {_trained(coded, coded.train)} {config.phone_epochs} passes of AdamW; the two-layer probe has "
        f"512 hidden units. "
        f"{_tested(coded)}"
    )
    return Table(PHONES, HEADERS[PHONES], rows, note)


def word_table(coded: Coded) -> Table:
    """Reads words from the semantic codes in three ways, and from the unquantized features by a reader.

    A text reader is trained on all semantic codebooks and on the unquantized features alone: its training
    takes longer than everything else here. The tokenizer's letter head was trained with prefixes too.
    """
    config, tested = coded.config, coded.clips(coded.tested)
    first = coded.vectors.semantic.num_codebooks
    streams = [
        name for name in coded.streams if name == UNQUANTIZED or coded.vectors.streams[name][1] < first
    ]
    trained = [named(0, first - 1), *(name for name in streams if name == UNQUANTIZED)]
    rows: list[tuple[Cell, ...]] = []
    for stream in progress_of(streams, "words", len(streams), unit="stream"):
        cells = [Cell("-") for _ in range(3)]
        if stream in trained:
            say = partial(log.info, "codebooks %s: %s", stream)
            reader = word_scores(coded.clips(coded.read), tested, coded.rows(stream), config, say)
            cells[0] = _cell(reader, config)
        if coded.heads is not None and stream != UNQUANTIZED:
            texts = letters_of_heads(coded.heads, tested, coded.rows(stream))
            cells[1] = _cell(word_errors(tested, texts), config)
        steps = coded.steps(stream)
        if coded.recogniser is not None and steps is not None:
            texts = words_of_decoder(coded.recogniser, tested, steps)
            cells[2] = _cell(word_errors(tested, texts), config)
        rows.append((Cell(stream), *cells, Cell(str(len(tested)))))
    rows.append((Cell("reading nothing"), *(Cell("1.000") for _ in range(3)), Cell("-")))
    note = (
        f"Word errors / words. The text reader is a small convolutional CTC network, the letter head the one "
        f"that the tokenizer was trained with; both by argmax, without a language model or dictionary. "
        f"{_trained(coded, coded.read)} {config.reader_epochs} passes. The recogniser's decoder, which took "
        f"part in the tokenizer's training, has a language model inside. {_tested(coded)}"
    )
    return Table(WORDS, HEADERS[WORDS], rows, note)


def voice_table(coded: Coded) -> Table:
    """Trains a speaker probe on every stream of codes."""
    config, tested = coded.config, coded.clips(coded.voices)
    known = {turn.speaker for turn in coded.voices}
    if len(known) < 2:
        raise ValueError(
            f"{coded.corpus.root} has {len(tested)} clips to test speakers on: expected two speakers with "
            f"{config.fewest_clips} of {len(coded.train)} training clips each; raise train_clips or lower "
            f"fewest_clips"
        )
    train = coded.clips([turn for turn in coded.train if turn.speaker in known])
    streams = [name for name in coded.streams if name != UNQUANTIZED]
    rows: list[tuple[Cell, ...]] = []
    for stream in progress_of(streams, "speakers", len(streams), unit="stream"):
        scores = speaker_scores(train, tested, coded.rows(stream), config)
        rows.append((Cell(stream), _cell(scores, config), Cell(str(len(scores)))))
    commonest = max(sum(turn.speaker == name for turn in coded.voices) for name in known) / len(coded.voices)
    rows.append((Cell("guessing the commonest speaker"), Cell(f"{commonest:.3f}"), Cell("-")))
    note = (
        f"Logistic regression on mean and deviation of the vectors over a clip, {len(known)} speakers of the "
        f"training, clips of validation and test, up to {config.tested_per_speaker} each. A probe with a "
        f"high error does not show that the codes lack it: one that is not linear may find more."
    )
    return Table(VOICES, HEADERS[VOICES], rows, note)


def twin_table(coded: Coded) -> Table:
    """Compares the codes of one text by two voices, with a control."""
    if not coded.twins:
        raise ValueError(
            f"{coded.corpus.root} has no conversations NAME and NAME-twin outside the train split"
        )
    config, rate = coded.config, coded.tokenizer.config.frame_rate
    pairs = [(coded.clips([a])[0], coded.clips([b])[0]) for a, b in coded.twins]
    rows: list[tuple[Cell, ...]] = []
    for codebook in range(coded.vectors.semantic.num_codebooks):
        equal = equal_codes(pairs, coded.ends, rate, codebook)
        control = equal_codes(pairs, coded.ends, rate, codebook, seed=config.seed)
        rows.append(
            (Cell(str(codebook)), _cell(equal, config), _cell(control, config), Cell(str(len(equal))))
        )
    note = (
        "Share of a text's symbols at whose middle, by forced alignment, both voices have the same code. The "
        "control compares each symbol with another one of the same two clips."
    )
    return Table(TWINS, HEADERS[TWINS], rows, note)


def _trained(coded: Coded, turns: Sequence[Turn]) -> str:
    config = coded.config
    return (
        f"Trained by ourselves (seed {config.seed}) on {len(turns)} clips of the train split, up to "
        f"{config.max_seconds:g} s, drawn evenly over speakers."
    )


def _tested(coded: Coded) -> str:
    strangers = held_out_speakers(coded.corpus)
    who = f"speakers that no training sees ({', '.join(strangers)})" if strangers else "the test split"
    return (
        f"Tested on clips of {who} whose lines are not in the train split; intervals resample conversations."
    )


def _commonest(clips: Sequence[CodedClip], labels: PhoneLabels) -> float:
    found = torch.cat([phones_of(clip, labels).flatten() for clip in clips])
    counts = torch.bincount(found[found != NONE])
    return float(counts.max() / counts.sum())


def _mean(scores: Sequence[Score]) -> float:
    mean = pooled_mean(scores, None)
    assert mean is not None, "every clip has a value"
    return mean


def _cell(scores: Sequence[Score], config: ProbeConfig) -> Cell:
    """Makes a cell of the pooled mean with its interval over conversations."""
    groups = by_conversation(scores)
    draws = bootstrap_repeats(
        groups,
        lambda picked: pooled_mean([score for group in picked for score in group], None),
        repeats=config.repeats,
        seed=seed_for(config.seed, "probes"),
    )
    return with_interval(_mean(scores), interval(draws) if len(groups) > 1 else None)
