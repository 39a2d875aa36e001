"""The part of ``launch/evaluate_speech.py`` that judges a voice: its arguments and its steps."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from csm.data.manifest import read_corpus
from csm.evaluation.voice_page import write_voice_page
from csm.evaluation.voice_report import VoiceOptions, judge_voice, refuse_other_report
from csm.evaluation.voice_tables import tables_text
from csm.generation.talker import Talker


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds --voice and what goes with it; it shares --corpus, --output, --asr, --seed and --workers."""
    group = parser.add_argument_group("a voice")
    group.add_argument("--voice", type=Path, metavar="FOLDER", help="of launch/export_voice.py")
    group.add_argument("--lines", type=int, default=60, help="most lines of a group (default: %(default)s)")
    group.add_argument(
        "--skip-ablations",
        action="store_true",
        help="leave out lines in context, and with parts of the model switched off",
    )
    group.add_argument("--int8", action="store_true", help="also speak with rounded weights")


def judge(options: argparse.Namespace, say: Callable[[str], None]) -> Path:
    """Judges the voice, prints the tables and writes the report; returns the path of the page.

    Raises:
        ValueError: Bad input; says what to do.
    """
    settings = VoiceOptions(
        lines=options.lines,
        ablations=not options.skip_ablations,
        int8=options.int8,
        asr=options.asr,
        seed=options.seed,
        workers=options.workers,
    )
    refuse_other_report(options.output)
    corpus = read_corpus(options.corpus)
    talker = Talker.from_pretrained(options.voice)
    judged = judge_voice(talker, corpus, options.output, settings, name=options.voice.resolve().name, say=say)
    print(tables_text(judged.report))
    return write_voice_page(options.output, judged, settings.players)
