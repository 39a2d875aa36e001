"""Trains the conversational model of a recipe on an encoded corpus.

    deepspeed --num_accelerators 2 launch/train.py --recipe quickstart --output runs/quickstart
    torchrun --nproc-per-node 2 launch/train.py --recipe quickstart --output runs/quickstart
    python launch/train.py --recipe quickstart --output runs/quickstart

The three give the same losses: a step's batch is training.shards micro-batches, over ranks and accumulation.
Codes are read from OUTPUT/codes (launch/encode_corpus.py). OUTPUT then holds config.json, model.safetensors,
run.json and metrics.jsonl. The same command again goes on with an unfinished training; a finished one is left
as it is. Ctrl-C writes a checkpoint before it ends.
"""

import argparse
import sys
from pathlib import Path

from csm import pipeline
from csm.command_line import add_local_rank, add_recipe, command, command_parser, device_of, resolved_recipe


def work(options: argparse.Namespace) -> None:
    """Trains."""
    codes = options.codes or options.output / "codes"
    pipeline.train_model(resolved_recipe(options), codes, options.output, device_of(options))


def main() -> int:
    """The command."""
    parser = command_parser(__doc__)
    add_recipe(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="of this run")
    parser.add_argument("--codes", type=Path, metavar="FOLDER", help="of the shards (default: OUTPUT/codes)")
    add_local_rank(parser)
    return command("train", parser, work)


if __name__ == "__main__":
    sys.exit(main())
