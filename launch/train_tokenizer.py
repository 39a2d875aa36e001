"""Trains the voice tokenizer of a recipe: waveform <-> codes.

    python launch/train_tokenizer.py --recipe quickstart --output runs/quickstart/tokenizer

The corpus is the recipe's; prepare it with launch/prepare_data.py, or name another: --set corpus=FOLDER.
OUTPUT then holds config.json and model.safetensors. The same command again goes on with an unfinished
training; a finished one is left as it is. Ctrl-C writes a checkpoint before it ends.
"""

import argparse
import sys
from pathlib import Path

from csm import pipeline
from csm.command_line import add_local_rank, add_recipe, command, command_parser, device_of, resolved_recipe


def work(options: argparse.Namespace) -> None:
    """Trains."""
    pipeline.train_tokenizer(resolved_recipe(options), options.output, device_of(options))


def main() -> int:
    """The command."""
    parser = command_parser(__doc__)
    add_recipe(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="of this tokenizer")
    add_local_rank(parser)
    return command("train_tokenizer", parser, work)


if __name__ == "__main__":
    sys.exit(main())
