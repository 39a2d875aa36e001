"""Trains the voice tokenizer of a recipe: waveform <-> codes.

    python launch/train_tokenizer.py --recipe quickstart --output runs/quickstart/tokenizer

The corpus is the recipe's; prepare it with launch/prepare_data.py, or name another: --set corpus=FOLDER.
OUTPUT then holds config.json and model.safetensors. The same command again goes on with an unfinished
training; a finished one is left as it is. Ctrl-C writes a checkpoint before it ends. Listen to it meanwhile:
OUTPUT/samples/index.html plays validation clips as they were resynthesised at each validation.

    python launch/train_tokenizer.py --recipe telephone_tokenizer --teacher models/wavlm --output DIR

teaches the semantic codebooks to give the features of a self-supervised model: a folder that holds a WavLM,
HuBERT or wav2vec2 in transformers' layout (extra [hf]). Nothing is downloaded.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from csm.command_line import add_local_rank, add_recipe, command, command_parser, device_of, resolved_recipe
from csm.recipes import pipeline


def work(options: argparse.Namespace) -> None:
    """Trains."""
    run = resolved_recipe(options)
    if options.teacher is not None:
        run = replace(run, teacher=options.teacher.as_posix())
    pipeline.train_tokenizer(run, options.output, device_of(options))


def main() -> int:
    """The command."""
    parser = command_parser(__doc__)
    add_recipe(parser)
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="of this tokenizer")
    parser.add_argument("--teacher", type=Path, metavar="FOLDER", help="of a WavLM, HuBERT or wav2vec2")
    add_local_rank(parser)
    return command("train_tokenizer", parser, work)


if __name__ == "__main__":
    sys.exit(main())
