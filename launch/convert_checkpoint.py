"""Converts a model between our layout and the two in which csm-1b is published.

    python launch/convert_checkpoint.py sesame-csm-1b models/csm-1b
    python launch/convert_checkpoint.py models/finetuned export --layout transformers --codec-from csm-1b-hf

    python launch/convert_checkpoint.py models/csm-1b merged --merge-lora runs/mine/adapter

The source's layout is told from its files: config.json and model.safetensors, whole or in shards. Tensors go
through memory one at a time and keep their dtype. What csm-1b lacks comes in with closed gates: the model
computes csm-1b bit for bit until it is trained on. A model whose gates are open stays in our layout. The
target must not hold another model.
"""

import argparse
import sys
from pathlib import Path

from csm.command_line import command, command_parser
from csm.network.io import checkpoints
from csm.network.io.adapters import merge


def work(options: argparse.Namespace) -> None:
    """Converts."""
    if (options.target / "config.json").exists():
        raise ValueError(f"{options.target} holds a model already: choose another folder, or remove it")
    stored = checkpoints.read(options.source, text=options.text)
    if options.merge_lora is not None:
        stored = merge(stored, options.merge_lora)
    checkpoints.write(
        options.target,
        stored.config,
        stored.weights,
        options.layout,
        codec_from=options.codec_from,
        shard_bytes=round(options.shard_gb * 1e9),
    )
    count = sum(weight.numel for weight in stored.weights.values())
    print(f"{options.target}: {options.layout} from {stored.layout}, {count:,} parameters read")


def main() -> int:
    """The command."""
    parser = command_parser(__doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder to read")
    parser.add_argument("target", type=Path, metavar="TARGET", help="folder to write")
    parser.add_argument(
        "--layout", choices=("csm", "transformers", "sesame"), default="csm", help="of TARGET (default: csm)"
    )
    parser.add_argument(
        "--text", metavar="FILE", help="the model's tokenizer.json (default: the one in SOURCE, if any)"
    )
    parser.add_argument(
        "--codec-from", type=Path, metavar="FOLDER", help="transformers' CSM whose Mimi goes along"
    )
    parser.add_argument(
        "--merge-lora",
        type=Path,
        metavar="FOLDER",
        help="adapter, ours or peft's, that is added to the weights",
    )
    parser.add_argument(
        "--shard-gb", type=float, default=50.0, metavar="GB", help="most of one file (default: %(default)s)"
    )
    return command("convert_checkpoint", parser, work)


if __name__ == "__main__":
    sys.exit(main())
