"""Encodes a recipe's corpus with a trained tokenizer: code shards, what the model is trained on.

    csm encode --recipe quickstart --output runs/quickstart/codes
    csm encode --ranks 4 --recipe quickstart --output runs/quickstart/codes
    torchrun --nproc-per-node 4 launch/encode_corpus.py --recipe quickstart --output runs/quickstart/codes

Every turn becomes its codes, frame prosody and speaker embedding in shards OUTPUT/codes_*.safetensors of 4
MB; index.json, written last, names the corpus and the tokenizer; codebooks.json holds the usage of every
codebook. Each rank encodes shards of its own; the bytes are the same for any number of ranks, and an encoding
that was killed is resumed at its last shard. A corpus that is already encoded is left as it is; of one that
has changed, the turns whose sound has changed are encoded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from csm.cli.options import add_recipe, resolved_recipe
from csm.cli.ranks import add_ranks, run_ranks, starts_ranks
from csm.recipes.steps.encode import encode_corpus
from csm.training.distributed import failing_together, start_distributed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_recipe(parser)
    parser.add_argument(
        "--tokenizer",
        type=Path,
        metavar="FOLDER",
        help="folder of the tokenizer's training (default: runs/RECIPE/tokenizer)",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder of the shards")
    add_ranks(parser)


def run(options: argparse.Namespace) -> int | None:
    """Encodes."""
    if starts_ranks(options):
        return run_ranks(options)
    tokenizer = options.tokenizer or Path("runs") / options.recipe / "tokenizer"
    distributed = start_distributed(options.device)
    with failing_together():
        count = encode_corpus(resolved_recipe(options), tokenizer, options.output, distributed)
    if distributed.rank == 0:
        print(f"{options.output}: {count} turns")
    return None
