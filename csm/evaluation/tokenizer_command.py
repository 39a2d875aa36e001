"""The part of ``launch/evaluate_speech.py`` that judges a tokenizer: its arguments and its steps."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from csm.data.manifest import read_corpus
from csm.evaluation.codec_ladder import LadderOptions, judge_tokenizer, refuse_other_report
from csm.evaluation.codec_page import write_ladder
from csm.evaluation.codec_tables import extra_text, ladder_text
from csm.evaluation.probes import what_the_codes_carry
from csm.tokenizer.conversational_rvq import ConversationalRVQ


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --tokenizer and what goes with it."""
    group = parser.add_argument_group("a voice tokenizer")
    group.add_argument("--tokenizer", type=Path, metavar="FOLDER", help="with config.json, model.safetensors")
    group.add_argument("--output", type=Path, metavar="DIR", help="where its report is written")
    group.add_argument(
        "--codebooks",
        type=_numbers,
        default=LadderOptions().codebooks,
        metavar="4,10,16,32",
        help="numbers of first codebooks to decode (default: %(metavar)s)",
    )
    group.add_argument("--clips", type=int, default=120, help="most clips judged (default: %(default)s)")
    group.add_argument(
        "--conditioned",
        action="store_true",
        help="give the decoder each clip's speaker and emotion embedding (default: the codes alone)",
    )
    group.add_argument(
        "--skip-probes", action="store_true", help="leave out what the codes carry, which takes some minutes"
    )


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def judge(options: argparse.Namespace, say: Callable[[str], None]) -> Path:
    """Judges the tokenizer, prints the tables and writes the report; returns the path of the page.

    Raises:
        ValueError: Bad input; says what to do.
    """
    settings = LadderOptions(
        codebooks=options.codebooks,
        clips=options.clips,
        conditioned=options.conditioned,
        asr=options.asr,
        seed=options.seed,
        workers=options.workers,
    )
    refuse_other_report(options.output)
    corpus = read_corpus(options.corpus)
    tokenizer = ConversationalRVQ.from_pretrained(options.tokenizer)
    extra = [] if options.skip_probes else what_the_codes_carry(tokenizer, corpus)
    name = _name(options.tokenizer)
    judged = judge_tokenizer(tokenizer, corpus, settings, name=name, extra=extra, say=say)
    print(ladder_text(judged.report))
    if judged.report["extra_tables"]:
        print("\n" + extra_text(judged.report["extra_tables"]))
    return write_ladder(options.output, judged)


def _name(folder: Path) -> str:
    """Of a tokenizer folder: those of runs are all called tokenizer, so with the folder above."""
    folder = folder.resolve()
    return f"{folder.parent.name}/{folder.name}"
