"""What 8-bit weights of the depth decoder cost, in nats of a finished run's validation codes.

python -m csm.rounding --run runs/voice
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from csm.command_line import command, command_parser, device_of
from csm.data.code_shards import read_code_shards
from csm.data.manifest import read_corpus
from csm.model import CSMModel
from csm.network.depth_decoder import DepthDecoder
from csm.recipes import pipeline
from csm_kernels import Int8Rows

PARTS = ("semantic", "acoustic")


@torch.no_grad()
def round_weights(decoder: DepthDecoder) -> None:
    """Every matrix becomes what its int8 copy computes with (`DepthSampler(model, "int8")`)."""
    for weight in decoder.parameters():
        if weight.ndim == 2:
            weight.copy_(Int8Rows.of(weight).restored())
        elif weight.ndim == 3:  # the heads: rows of the logits are their last dimension
            weight.copy_(Int8Rows.of(weight.transpose(1, 2)).restored().transpose(1, 2))


def cost_of_rounding(folder: Path, device: torch.device) -> dict[str, tuple[float, float]]:
    """Mean nats of the validation turns' later codes with the weights as they are and rounded, by part.

    Raises:
        ValueError: No finished run there.
    """
    run = pipeline.load_run(folder)
    model = CSMModel.from_pretrained(folder).to(device)
    codes = folder / "codes"
    material = read_corpus(run.corpus), read_code_shards(codes)
    task = pipeline.model_task(run, model, material, codes, device)
    exact = task.validate(0)
    round_weights(model.depth_decoder)
    rounded = task.validate(0)
    return {part: (exact[f"model/{part}"], rounded[f"model/{part}"]) for part in PARTS}


def work(options: argparse.Namespace) -> None:
    """Prints a line for each part."""
    for part, (exact, rounded) in cost_of_rounding(options.run, device_of(options)).items():
        print(f"{part} codes after the first: {exact:.4f} nats, in 8 bits {rounded:.4f}")


def main() -> int:
    """The command."""
    parser = command_parser(__doc__)
    parser.add_argument(
        "--run", type=Path, required=True, metavar="FOLDER", help="of a finished launch/train.py"
    )
    return command("rounding", parser, work)


if __name__ == "__main__":
    sys.exit(main())
