"""Trains the conversational model of a recipe on an encoded corpus.

    csm train --recipe quickstart --output runs/quickstart
    csm train --ranks 2 --recipe quickstart --output runs/quickstart
    torchrun --nproc-per-node 2 -m csm train --recipe quickstart --output runs/quickstart
    deepspeed --num_accelerators 2 launch/train.py --recipe quickstart --output runs/quickstart

The four give the same losses: a step has training.micro_batches micro-batches, spread over the ranks.
Codes are read from OUTPUT/codes (csm encode). OUTPUT then holds config.json, model.safetensors, run.json and
metrics.jsonl, and adapter/ where LoRA was trained. The same command again resumes an unfinished training and
leaves a finished one as it is. Ctrl-C writes a checkpoint before it ends.

    csm train --recipe finetune_csm_1b --dry-run

prints the memory of a rank on 1 to 64 GPUs and the arithmetic of a batch; it reads no weights and no corpus.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from csm.cli.fields import field_lines
from csm.cli.options import add_recipe, device_of, resolved_recipe
from csm.cli.ranks import add_ranks, run_ranks, starts_ranks
from csm.recipes.steps.train_model import train_model, trained_shape
from csm.recipes.steps.turn_tables import remote_codes
from csm.training.dry_run import dry_run


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    add_recipe(parser)
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder of this run")
    parser.add_argument(
        "--codes",
        metavar="FOLDER",
        help="folder of the shards, or its address in a bucket (s3://...), which OUTPUT/codes then stands "
        "for (default: OUTPUT/codes)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print memory and batch sizes; train nothing")
    parser.add_argument("--fields", action="store_true", help="print the recipe's fields; train nothing")
    add_ranks(parser)


def run(options: argparse.Namespace) -> int | None:
    """Trains, or prints what a training would take."""
    recipe = resolved_recipe(options)
    if options.fields:
        print("\n".join(field_lines(recipe)))
        return None
    if options.dry_run:
        shape = trained_shape(recipe)
        lines = dry_run(shape, recipe.finetune, recipe.data, recipe.training, recipe.execution)
        print("\n".join(lines))
        return None
    if options.output is None:
        raise ValueError("--output is missing: expected the folder of this run")
    if starts_ranks(options):
        return run_ranks(options)
    codes = options.output / "codes"
    if options.codes is not None:
        remote = "://" in options.codes
        codes = remote_codes(options.codes, codes) if remote else Path(options.codes)
    train_model(recipe, codes, options.output, device_of(options))
    return None
