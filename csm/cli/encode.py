"""Encodes a recipe's corpus with a trained tokenizer: code shards, what the model is trained on.

    csm encode --recipe quickstart --output runs/quickstart/codes

Every turn becomes its codes, frame prosody and speaker embedding in OUTPUT/codes_*.safetensors; index.json,
written last, names the corpus and the tokenizer; codebooks.json holds the usage of every codebook. A corpus
that is already encoded is left as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from csm.cli.options import add_recipe, device_of, resolved_recipe
from csm.recipes.steps.encode import encode_corpus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_recipe(parser)
    parser.add_argument(
        "--tokenizer", type=Path, metavar="FOLDER", help="of its training (default: runs/RECIPE/tokenizer)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="of the shards")


def run(options: argparse.Namespace) -> None:
    """Encodes."""
    tokenizer = options.tokenizer or Path("runs") / options.recipe / "tokenizer"
    count = encode_corpus(resolved_recipe(options), tokenizer, options.output, device_of(options))
    print(f"{options.output}: {count} turns")
