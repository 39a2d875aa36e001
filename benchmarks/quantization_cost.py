"""Measures the validation cross-entropy (nats) that int8 weights of the depth decoder add to a finished run.

python benchmarks/quantization_cost.py --run runs/voice
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from csm.cli.options import add_device, device_of
from csm.cli.process import run_command
from csm.data.code_companions import read_code_vectors
from csm.data.code_shards import read_code_shards
from csm.model import CSMModel
from csm.network.depth_decoder import DepthDecoder
from csm.recipes.run_files import load_run
from csm.recipes.steps.train_model import model_task
from csm.recipes.steps.turn_tables import training_tables
from csm.training.distributed import DistributedContext
from csm_kernels import Int8Rows

PARTS = ("semantic", "acoustic")


@torch.no_grad()
def quantize_weights(decoder: DepthDecoder) -> None:
    """Replaces every matrix by the values that its int8 copy computes with, in place."""
    for weight in decoder.parameters():
        if weight.ndim == 2:
            weight.copy_(Int8Rows.of(weight).restored())
        elif weight.ndim == 3:  # the heads: one row per logit is their last dimension
            weight.copy_(Int8Rows.of(weight.transpose(1, 2)).restored().transpose(1, 2))


def quantization_cost(folder: Path, device: torch.device) -> dict[str, tuple[float, float]]:
    """Returns the mean cross-entropy (nats) of the codes after code 0, with fp32 and with int8 weights.

    Args:
        folder: Output folder of a finished run.
        device: Device that the model runs on.

    Returns:
        (fp32, int8) of each name in PARTS.

    Raises:
        ValueError: The folder holds no finished run.
    """
    run = load_run(folder)
    model = CSMModel.from_pretrained(folder).to(device)
    codes = folder / "codes"
    alone = DistributedContext(rank=0, size=1, local_size=1, device=device)
    tables = training_tables(run, codes, read_code_shards(codes), model, alone)
    task = model_task(run, model, tables, read_code_vectors(codes), device)
    exact = task.validate(0)
    quantize_weights(model.depth_decoder)
    quantized = task.validate(0)
    return {part: (exact[f"model/{part}"], quantized[f"model/{part}"]) for part in PARTS}


def run(options: argparse.Namespace) -> None:
    """Prints one line for each part."""
    for part, (exact, quantized) in quantization_cost(options.run, device_of(options)).items():
        print(f"{part} codes after code 0: {exact:.4f} nats with fp32 weights, {quantized:.4f} with int8")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments."""
    parser.add_argument("--run", type=Path, required=True, metavar="FOLDER", help="of a finished csm train")
    add_device(parser)


if __name__ == "__main__":
    sys.exit(run_command("quantization_cost", lambda: sys.modules[__name__], sys.argv[1:]))
