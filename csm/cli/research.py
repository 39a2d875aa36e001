"""Answers a research question: trains what it compares, measures it on held-out turns, and gives a verdict.

    csm research memory --codes runs/wideband/codes --output runs/research/memory
    csm research losses --codes runs/wideband/codes --output runs/research/losses --steps 500

The verdict is "supported", "not supported" or "not decided", by a rule that the page states. OUTPUT then
holds the trained models (seedN/ARM), what was measured of each clip (measured/), results.json and
report.html. The same command again trains and measures only what is not there yet. docs/research.md says what
each question trains.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from csm.cli.options import add_recipe, device_of, resolved_recipe
from csm.research.answer import ResearchOptions, answer
from csm.research.named import QUESTIONS
from csm.research.page import answer_text, write_research_page
from csm.research.trainings import with_steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("question", choices=QUESTIONS, help="; ".join(_titles()))
    parser.add_argument(
        "--codes", type=Path, required=True, metavar="FOLDER", help="folder of the codes of csm encode"
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="folder of this question"
    )
    parser.add_argument(
        "--steps", type=int, metavar="N", help="number of steps of each training (default: the recipe's)"
    )
    parser.add_argument(
        "--seeds", type=int, default=3, metavar="N", help="number of seeds of each training (default: 3)"
    )
    parser.add_argument(
        "--lines",
        type=int,
        default=60,
        metavar="N",
        help="largest number of lines spoken and transcribed; 0: none (default: 60)",
    )
    parser.add_argument(
        "--asr", metavar="MODEL", help="recogniser of what is spoken, as of csm evaluate (default: tiny.en)"
    )
    add_recipe(parser)
    parser.set_defaults(recipe="research")


def run(options: argparse.Namespace) -> None:
    """Answers.

    Raises:
        ValueError: Bad input; the message says what to do.
    """
    base = resolved_recipe(options)
    if options.steps is not None:
        base = with_steps(base, options.steps)
    settings = ResearchOptions(
        codes=options.codes,
        output=options.output,
        seeds=options.seeds,
        lines=options.lines,
        asr=options.asr,
        device=device_of(options),
    )
    found = answer(QUESTIONS[options.question], base, settings)
    print(answer_text(found))
    print(f"report: {write_research_page(options.output, found)}")


def _titles() -> list[str]:
    return [f"{name}: {question.title}" for name, question in QUESTIONS.items()]
