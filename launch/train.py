"""Trains the conversational model of a recipe on an encoded corpus.

    deepspeed --num_accelerators 2 launch/train.py --recipe quickstart --output runs/quickstart
    torchrun --nproc-per-node 2 launch/train.py --recipe quickstart --output runs/quickstart
    python launch/train.py --recipe quickstart --output runs/quickstart

The three give the same losses: training.micro_batches of a step are spread over ranks and accumulation.
Codes are read from OUTPUT/codes (launch/encode_corpus.py). OUTPUT then holds config.json, model.safetensors,
run.json and metrics.jsonl, and adapter/ where LoRA was trained. The same command again goes on with an
unfinished training; a finished one is left as it is. Ctrl-C writes a checkpoint before it ends.

    python launch/train.py --recipe finetune_csm_1b --dry-run

prints the memory of a rank on 1 to 64 GPUs and the arithmetic of a batch; it reads no weights and no corpus.
"""

import argparse
import sys
from pathlib import Path

from csm.command_line import add_local_rank, add_recipe, command, command_parser, device_of, resolved_recipe
from csm.recipes import pipeline
from csm.training.dry_run import dry_run


def work(options: argparse.Namespace) -> None:
    """Trains, or says what a training would take."""
    run = resolved_recipe(options)
    if options.dry_run:
        print(
            "\n".join(
                dry_run(pipeline.trained_shape(run), run.finetune, run.data, run.training, run.execution)
            )
        )
        return
    if options.output is None:
        raise ValueError("--output FOLDER is needed: of this run")
    pipeline.train_model(run, options.codes or options.output / "codes", options.output, device_of(options))


def main() -> int:
    """The command."""
    parser = command_parser(__doc__)
    add_recipe(parser)
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="of this run")
    parser.add_argument("--codes", type=Path, metavar="FOLDER", help="of the shards (default: OUTPUT/codes)")
    parser.add_argument("--dry-run", action="store_true", help="print memory and batch sizes; train nothing")
    add_local_rank(parser)
    return command("train", parser, work)


if __name__ == "__main__":
    sys.exit(main())
