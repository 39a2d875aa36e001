"""How much of speech each number of codebooks keeps: the tokenizer judged on held-out clips."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from csm.data.manifest import Corpus, Turn
from csm.data.turn_audio import read_turn
from csm.evaluation.codec import PAIR_MEASURES, paired, paired_scores
from csm.evaluation.intelligibility import SpeechRecogniser, word_error_rate
from csm.evaluation.statistics import pooled_mean
from csm.tokenizer.conversational_rvq import ConversationalRVQ


class Rung(NamedTuple):
    """One row of the table.

    Attributes:
        codebooks: How many were decoded; 0 is the recording itself.
        kbits: Kilobits a second. clips: How many were judged.
        values: Mean by metric name; None where a clip could not be judged.
    """

    codebooks: int
    kbits: float
    clips: int
    values: dict[str, float | None]


def held_out_clips(corpus: Corpus, count: int, *, shortest: float = 1.5) -> list[Turn]:
    """The first `count` turns of the test split that last at least `shortest` seconds and have a text."""
    turns = [t for t in corpus.turns("test") if t.duration >= shortest and t.text.strip()]
    if not turns:
        raise ValueError(f"{corpus.root} has no test turn of {shortest} s or more with a text")
    return turns[:count]


@torch.no_grad()
def codec_ladder(
    tokenizer: ConversationalRVQ,
    corpus: Corpus,
    turns: Sequence[Turn],
    codebooks: Sequence[int],
    recogniser: SpeechRecogniser,
) -> list[Rung]:
    """WER, PESQ-WB, STOI, SI-SDR and log-mel L1 of the recordings and of each number of codebooks.

    Args:
        tokenizer: In eval mode.
        corpus, turns: What is resynthesised, each turn with its own speaker and emotion embedding.
        codebooks: Numbers of first codebooks to decode.
        recogniser: The judge of words.
    """
    config = tokenizer.config
    recordings = [read_turn(corpus, turn, config.sample_rate) for turn in turns]
    encoded = [tokenizer.encode(recording.unsqueeze(0)) for recording in recordings]
    rungs = []
    for count in (0, *codebooks):
        outputs = [recording[0].numpy() for recording in recordings]
        if count:
            outputs = [
                tokenizer.decode(codes[:, :count], speaker=info.speaker, emotion=info.emotion)[0, 0].numpy()[
                    : len(o)
                ]
                for (codes, info), o in zip(encoded, outputs, strict=True)
            ]
        rungs.append(_judged(count, outputs, recordings, turns, tokenizer, recogniser))
    return rungs


def _judged(
    count: int,
    outputs: Sequence[np.ndarray],
    recordings: Sequence[torch.Tensor],
    turns: Sequence[Turn],
    tokenizer: ConversationalRVQ,
    recogniser: SpeechRecogniser,
) -> Rung:
    config = tokenizer.config
    rate = config.sample_rate
    spoken = [(output, rate, turn.text) for output, turn in zip(outputs, turns, strict=True)]
    values: dict[str, float | None] = {"wer": word_error_rate(recogniser, spoken)[0]}
    pairs = paired([(r[0].numpy(), o, rate) for r, o in zip(recordings, outputs, strict=True)])
    for name, measure in PAIR_MEASURES.items():
        values[name] = pooled_mean(paired_scores(pairs, measure), None)
    bits = count * config.frame_rate * float(np.log2(config.codebook_size))
    return Rung(count, bits / 1000, len(turns), values)


def ladder_table(rungs: Sequence[Rung]) -> str:
    """The rungs as an ASCII table, one line each."""
    names = list(rungs[0].values)
    lines = [
        "codebooks  kbit/s  " + "  ".join(f"{name:>10}" for name in names) + f"   ({rungs[0].clips} clips)"
    ]
    for rung in rungs:
        cells = ("failed" if v is None else f"{v:.3f}" for v in rung.values.values())
        label = "original" if rung.codebooks == 0 else str(rung.codebooks)
        kbits = "-" if rung.codebooks == 0 else f"{rung.kbits:.2f}"
        lines.append(f"{label:>9}  {kbits:>6}  " + "  ".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)
