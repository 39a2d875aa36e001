"""Encodes a recipe's corpus with a trained tokenizer: code shards, what the model is trained on.

    python launch/encode_corpus.py --recipe quickstart --output runs/quickstart/codes

Every turn becomes its codes, frame prosody and speaker embedding in OUTPUT/codes_*.safetensors; index.json,
written last, names the corpus and the tokenizer. Usage of every codebook goes to OUTPUT/codebooks.json. A
corpus that is already encoded is left as it is.
"""

import argparse
import sys
from pathlib import Path

from csm.command_line import add_recipe, command, command_parser, device_of, resolved_recipe
from csm.recipes import pipeline


def work(options: argparse.Namespace) -> None:
    """Encodes."""
    tokenizer = options.tokenizer or Path("runs") / options.recipe / "tokenizer"
    count = pipeline.encode_corpus(resolved_recipe(options), tokenizer, options.output, device_of(options))
    print(f"{options.output}: {count} turns")


def main() -> int:
    """The command."""
    parser = command_parser(__doc__)
    add_recipe(parser)
    parser.add_argument(
        "--tokenizer", type=Path, metavar="FOLDER", help="of its training (default: runs/RECIPE/tokenizer)"
    )
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="of the shards")
    return command("encode_corpus", parser, work)


if __name__ == "__main__":
    sys.exit(main())
