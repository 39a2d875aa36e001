"""Evaluates speech and writes a report: report.json and a page, report.html.

csm evaluate --run runs/quickstart --corpus data/amazon_queen_excerpt
csm evaluate --compare runs/a runs/b      compares two reports by a paired bootstrap
csm evaluate --tokenizer csm/weights/tokenizer --corpus data/amazon_queen --output DIR
csm evaluate --voice csm/weights/voice --corpus data/amazon_queen --output DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path

from csm.evaluation import tokenizer_command, voice_command
from csm.evaluation.comparison import compare_reports, comparison_table
from csm.evaluation.material import SuiteOptions
from csm.evaluation.report import is_judged, write_page
from csm.evaluation.suite import evaluate
from csm.evaluation.table import report_table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("--run", type=Path, metavar="FOLDER", help="of a run with speech/speech.jsonl in it")
    parser.add_argument(
        "--corpus", type=Path, metavar="FOLDER", help="of reference recordings or held-out clips"
    )
    parser.add_argument(
        "--asr", metavar="MODEL", help="faster-whisper model, name or folder (default: packaged tiny.en)"
    )
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), help="two runs or report.json")
    parser.add_argument("--keep", action="store_true", help="leave a report that is newer than the speech")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap and of the clips")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="metrics at the same time")
    tokenizer_command.add_arguments(parser)
    voice_command.add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    """Evaluates or compares."""
    subjects = ("run", "compare", "tokenizer", "voice")
    if sum(getattr(options, name) is not None for name in subjects) != 1:
        raise ValueError("expected one of --run DIR, --compare A B, --tokenizer FOLDER and --voice FOLDER")
    if options.compare:
        print(comparison_table(compare_reports(*options.compare, seed=options.seed)))
    elif options.run:
        evaluate_run(options)
    else:
        if not (options.corpus and options.output):
            raise ValueError("--tokenizer and --voice need --corpus FOLDER with the clips, and --output DIR")
        judge = (tokenizer_command if options.tokenizer else voice_command).judge
        print(f"report: {judge(options, say)}")


def evaluate_run(options: argparse.Namespace) -> None:
    """Evaluates the speech of a run, unless --keep finds that done."""
    if options.keep and is_judged(options.run):
        print(f"report: {options.run / 'report.html'} (the evaluation is complete; nothing to do)")
        return
    settings = SuiteOptions(asr=options.asr, seed=options.seed, workers=options.workers)
    report = evaluate(options.run, options.corpus, settings, say=say)
    print(report_table(report))
    print(f"report: {write_page(options.run, report)}")


def say(message: str) -> None:
    """Prints one progress line."""
    print(f"  {message}", flush=True)
