"""Converts a model between this project's layout and the two in which csm-1b is published.

    csm convert sesame-csm-1b models/csm-1b
    csm convert models/finetuned export --layout transformers --codec-from csm-1b-hf
    csm convert models/csm-1b merged --merge-lora runs/mine/adapter

The files show the source's layout: config.json and model.safetensors, whole or in shards. Tensors go through
memory one at a time and keep their dtype. What csm-1b lacks is added with closed gates: the model computes
csm-1b bit for bit until it is trained on. A model whose gates are open stays in this layout. The target must
not hold another model.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from csm.network.io import checkpoints
from csm.network.io.adapters import merge


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder to read")
    parser.add_argument("target", type=Path, metavar="TARGET", help="folder to write")
    parser.add_argument(
        "--layout",
        choices=("csm", "transformers", "sesame"),
        default="csm",
        help="layout of TARGET (default: csm)",
    )
    parser.add_argument(
        "--text", metavar="FILE", help="the model's tokenizer.json (default: the one in SOURCE, if any)"
    )
    parser.add_argument(
        "--codec-from", type=Path, metavar="FOLDER", help="transformers' CSM whose Mimi is copied to TARGET"
    )
    parser.add_argument(
        "--merge-lora", type=Path, metavar="FOLDER", help="adapter, ours or peft's, to add to the weights"
    )
    parser.add_argument(
        "--shard-gb",
        type=float,
        default=50.0,
        metavar="GB",
        help="largest size of one file in GB (default: %(default)s)",
    )


def run(options: argparse.Namespace) -> None:
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
