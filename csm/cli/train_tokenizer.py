"""Trains the voice tokenizer of a recipe: waveform <-> codes.

    csm train-tokenizer --recipe quickstart --output runs/quickstart/tokenizer

The corpus is the recipe's; prepare it with csm prepare, or name another: --set corpus=FOLDER. OUTPUT then
holds config.json and model.safetensors. The same command again resumes an unfinished training and leaves a
finished one as it is. Ctrl-C writes a checkpoint before it ends. OUTPUT/samples/index.html plays validation
clips as each validation resynthesised them, while the training runs. csm train --fields lists the fields.

    csm train-tokenizer --recipe telephone_tokenizer --teacher models/wavlm --output DIR

teaches the semantic codebooks to give the features of a self-supervised model: a folder that holds a WavLM,
HuBERT or wav2vec2 in transformers' layout (extra [hf]). Nothing is downloaded.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from csm.cli.options import add_recipe, device_of, resolved_recipe
from csm.cli.ranks import add_ranks, run_ranks, starts_ranks
from csm.recipes.steps.train_tokenizer import train_tokenizer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_recipe(parser)
    parser.add_argument(
        "--output", type=Path, required=True, metavar="FOLDER", help="folder of this tokenizer"
    )
    parser.add_argument(
        "--teacher", type=Path, metavar="FOLDER", help="folder of a WavLM, HuBERT or wav2vec2 model"
    )
    add_ranks(parser)


def run(options: argparse.Namespace) -> int | None:
    """Trains."""
    recipe = resolved_recipe(options)
    if options.teacher is not None:
        recipe = replace(recipe, teacher=options.teacher.as_posix())
    if starts_ranks(options):
        return run_ranks(options)
    train_tokenizer(recipe, options.output, device_of(options))
    return None
