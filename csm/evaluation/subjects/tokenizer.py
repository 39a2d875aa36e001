"""Evaluation of a tokenizer: how much of speech each number of codebooks keeps, beside classical codecs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from csm.data.manifest import Corpus, Turn, read_corpus
from csm.data.turn_audio import read_turn
from csm.evaluation.core.clips import ClipSet, ClipSets
from csm.evaluation.core.metric import Metric
from csm.evaluation.core.report import Missing, Report, refuse_other_report, save_report
from csm.evaluation.core.runner import RunnerOptions, Say, run_metrics, silent
from csm.evaluation.metrics.codebooks import codebook_summary, few_frames
from csm.evaluation.metrics.fidelity import Fidelity
from csm.evaluation.metrics.head_readers import letters_of_prefixes
from csm.evaluation.metrics.naturalness import Naturalness
from csm.evaluation.metrics.similarity import OriginalSimilarity
from csm.evaluation.metrics.words import Intelligibility
from csm.evaluation.systems.classical_codecs import ANCHORS
from csm.evaluation.systems.conditions import (
    Condition,
    by_anchor,
    by_codebooks,
    held_out_clips,
    recordings,
)
from csm.system.threads import one_thread
from csm.tokenizer.conversational_rvq import ConversationalRVQ
from csm.tokenizer.semantic.semantic_heads import SemanticHeads
from csm.tokenizer.usage import codebook_statistics

KIND = "tokenizer"
GROUP = "held-out clips"


@dataclass(frozen=True, kw_only=True)
class TokenizerOptions:
    """How a tokenizer is evaluated.

    Attributes:
        tokenizer: Folder with config.json and model.safetensors.
        corpus: Folder of the corpus that held-out clips are taken from.
        output: Folder of the report.
        codebooks: Numbers of first codebooks to decode.
        clips: Most clips.
        speakers: Speakers that the clips are taken from; empty for those that the corpus names as held out.
        conditioned: Whether the decoder is given each clip's own speaker and emotion embedding.
        asr: faster-whisper model name or folder; None for the packaged tiny.en.
        players: Most clips with a player on the page.
        runner: Seed, bootstrap and workers.
    """

    tokenizer: Path = Path()
    corpus: Path = Path()
    output: Path = Path()
    codebooks: tuple[int, ...] = (4, 10, 16, 32)
    clips: int = 120
    speakers: tuple[str, ...] = ()
    conditioned: bool = False
    asr: str | None = None
    players: int = 8
    runner: RunnerOptions = field(default_factory=RunnerOptions)

    def __post_init__(self) -> None:
        if self.clips < 1:
            raise ValueError(f"clips is {self.clips}: expected 1 or more")
        if not self.codebooks or len(set(self.codebooks)) < len(self.codebooks) or min(self.codebooks) < 1:
            raise ValueError(
                f"codebooks is {self.codebooks}; expected different numbers from 1, as in 4,10,16,32"
            )


class EvaluatedTokenizer(NamedTuple):
    """Result of an evaluation: the report, and the conditions with their audio for the page."""

    report: Report
    conditions: list[Condition]


def evaluate_tokenizer(options: TokenizerOptions, say: Say = silent) -> EvaluatedTokenizer:
    """Evaluates the tokenizer of a folder and writes report.json into the output folder.

    Raises:
        ValueError: A folder cannot be read, the output holds another report, or see `measure_tokenizer`.
    """
    refuse_other_report(options.output, KIND)
    corpus = read_corpus(options.corpus).held()
    tokenizer = ConversationalRVQ.from_pretrained(options.tokenizer)
    folder = options.tokenizer.resolve()
    # The tokenizers of runs are all called "tokenizer", so the folder above is part of the name.
    name = f"{folder.parent.name}/{folder.name}"
    heads = SemanticHeads.read(options.tokenizer)
    evaluated = measure_tokenizer(tokenizer, corpus, options, name=name, heads=heads, say=say)
    save_report(options.output, evaluated.report)
    return evaluated


def measure_tokenizer(
    tokenizer: ConversationalRVQ,
    corpus: Corpus,
    options: TokenizerOptions,
    *,
    name: str = "tokenizer",
    heads: SemanticHeads | None = None,
    say: Say = silent,
) -> EvaluatedTokenizer:
    """Measures the recordings, each number of codebooks and the classical codecs in one run.

    Args:
        tokenizer: Tokenizer in eval mode, on the CPU.
        corpus: Corpus that held-out clips are taken from.
        options: How to evaluate; its folders are not read.
        name: Name of the tokenizer in the report.
        heads: Heads that read the semantic codes of the clips with players; None leaves the texts out.
        say: Receives one short line as each step ends.

    Returns:
        The report and the conditions. The same inputs, options and machine give the same report.

    Raises:
        ValueError: The tokenizer has fewer codebooks than asked for, or there is no clip.
    """
    _check(tokenizer, options)
    turns, origin = held_out_clips(corpus, options.clips, seed=options.runner.seed, speakers=options.speakers)
    with one_thread():  # sums of several threads are not added in a fixed order
        original = recordings(corpus, turns)
        decoded, codes = by_codebooks(
            tokenizer, corpus, turns, options.codebooks, original, conditioned=options.conditioned
        )
        say(f"{len(turns)} clips resynthesised")
        read_back = {} if heads is None else _read_back(tokenizer, heads, corpus, turns[: options.players])
        conditions = [original, *decoded, *(by_anchor(anchor, original) for anchor in ANCHORS)]
        say("classical codecs: done")
    sets = tokenizer_sets(conditions)
    results = run_metrics(tokenizer_metric_rows(options), sets, options.runner, say)
    absent = [Missing(one.title, f"{one.title} {one.missing}") for one in conditions if one.missing]
    results.missing = absent + results.missing
    books = codebook_statistics(codes, tokenizer.config.codebook_size)
    if (note := few_frames(books)) is not None:
        results.missing.append(Missing("codebooks", note))
    results.details |= {
        "clips": {
            "origin": origin,
            "count": len(turns),
            "conversations": len({turn.conversation for turn in turns}),
            "seconds": sum(clip.duration for clip in original.clips),
            "players": [clip.id for clip in original.clips[: options.players]],
        },
        "conditioned": options.conditioned,
        "read_back": read_back,
        "conditions": [_described(one) for one in conditions],
        "codebooks": {
            **books,
            "semantic": tokenizer.config.semantic_codebooks,
            "frames": codes.shape[-1],
            "summary": codebook_summary(books, tokenizer.config.frame_rate),
        },
    }
    report = results.report(
        KIND,
        name,
        corpus.info.get("name"),
        options.runner,
        conditions=[one.name for one in conditions],
    )
    return EvaluatedTokenizer(report, conditions)


def tokenizer_sets(conditions: Sequence[Condition]) -> ClipSets:
    """Makes clip sets of the conditions that exist; the first one is the reference."""
    present = [one for one in conditions if not one.missing]
    sets = tuple(ClipSet(group=GROUP, condition=one.name, clips=one.clips) for one in present)
    return ClipSets(sets=sets, reference=conditions[0].name)


def tokenizer_metric_rows(options: TokenizerOptions) -> dict[str, Callable[[], Metric]]:
    """Lists the metrics of a tokenizer, the longest first. Not DNSMOS, which ranks Codec2 above Opus."""
    return {
        "word error rate": partial(Intelligibility, options.asr),
        "distillMOS": partial(Naturalness, "distillmos"),
        "speaker similarity": OriginalSimilarity,
        "PESQ-WB": partial(Fidelity, "pesq_wb"),
        "STOI": partial(Fidelity, "stoi"),
        "log-mel distance": partial(Fidelity, "log_mel_l1"),
    }


def _check(tokenizer: ConversationalRVQ, options: TokenizerOptions) -> None:
    known = tokenizer.config.n_codebooks
    if max(options.codebooks) > known:
        raise ValueError(
            f"codebooks {max(options.codebooks)}: the tokenizer has {known}; name numbers from 1 to {known}"
        )


def _read_back(
    tokenizer: ConversationalRVQ, heads: SemanticHeads, corpus: Corpus, turns: Sequence[Turn]
) -> dict[str, dict[str, str]]:
    """Returns what the letter head reads from 1, 4 and all semantic codebooks of each clip, by clip."""
    config, texts = tokenizer.config, {}
    counts = sorted({min(count, config.semantic_codebooks) for count in (1, 4, config.semantic_codebooks)})
    for turn in turns:
        try:
            audio = read_turn(corpus, turn, config.sample_rate)
        except ValueError:  # counted and named among the conditions
            continue
        codes, _ = tokenizer.encode(audio.unsqueeze(0), num_codebooks=config.semantic_codebooks)
        read = letters_of_prefixes(heads, tokenizer.quantizer.semantic, codes[0], counts)
        texts[turn.id] = dict(zip(map(str, counts), read, strict=True))
    return texts


def _described(condition: Condition) -> dict[str, Any]:
    described = vars(replace(condition, clips=()))
    return {**{key: value for key, value in described.items() if key not in ("clips", "delay")}} | {
        "delay_ms": 1000 * condition.delay
    }
