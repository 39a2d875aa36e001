"""What fixed shapes cost: the share of padding in the micro-batches of a recipe (execution.compile=graphs).

    python benchmarks/padding_share.py --recipe research --codes runs/research/codes

Counts alone, no model runs. *mean* is what micro-batches need on average, *share* the part of the budget that
is padding then. Micro-batches beyond the budget get twice its sizes, and a graph of their own. *work* weighs
the rows of backbone and depth decoder by the parameters that multiply them. At the end: how full
micro-batches would be if an epoch's chunks were packed the fullest first and not in the order drawn.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from float8_losses import task_of

from csm.cli.options import add_recipe, resolved_recipe
from csm.data.sampler import ChunkSampler
from csm.data.window_sampler import packed
from csm.network.batch_layout import BatchLayout
from csm.network.execution import ExecutionConfig
from csm.network.fixed_shapes import BatchSizes, sizes_of


def packed_tightly(sampler: ChunkSampler) -> tuple[int, int]:
    """Returns the micro-batches of the first epoch: as drawn, and where each takes the largest that fits."""
    drawn = sampler.epoch(0)
    sizes = [
        sum(sampler.rows[c.conversation][c.first : c.first + c.turns]) for chunks in drawn for c in chunks
    ]
    count = -(-sum(sizes) // sampler.rows_per_micro_batch)
    while packed(sizes, count, sampler.rows_per_micro_batch)[1]:
        count += 1
    return len(drawn), count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add_recipe(parser)
    parser.add_argument("--codes", type=Path, required=True)
    parser.add_argument("--micro-batches", type=int, default=500, help="how many are counted")
    options = parser.parse_args()
    run = resolved_recipe(options)
    run = replace(run, execution=ExecutionConfig(compile="graphs"))
    task = task_of(run, options.codes, torch.device("cpu"))
    budget = task.budget
    assert budget is not None
    found, multiples = [], 0
    for place in range(options.micro_batches):
        step, micro_batch = divmod(place, run.training.micro_batches)
        batch = task.model.with_layout(task.train.batch(step + 1, micro_batch))
        found.append(sizes_of(batch, cast(BatchLayout, batch.layout)))
        multiples += budget.fitting(found[-1]) != budget.sizes
    means = BatchSizes(*torch.tensor(found, dtype=torch.float64).mean(dim=0).tolist())
    most = BatchSizes(*torch.tensor(found).amax(dim=0).tolist())
    print(f"{len(found)} micro-batches, {multiples} beyond the budget")
    print("| size | mean | most | budget | share of padding |\n|---|---|---|---|---|")
    for name, mean in means._asdict().items():
        size = getattr(budget.sizes, name)
        print(f"| {name} | {mean:.1f} | {getattr(most, name)} | {size} | {1 - mean / max(size, 1):.2f} |")
    blocks = {"rows": task.model.backbone, "depth": task.model.depth_decoder}
    weights = {
        name: sum(p.numel() for p in block.parameters() if p.ndim == 2) for name, block in blocks.items()
    }
    # A frame is a sequence of all codebooks, each of which has a head of its own.
    weights["depth"] *= task.model.config.num_codebooks
    weights["depth"] += task.model.depth_decoder.heads.numel()
    asked = sum(weights[name] * getattr(means, name) for name in weights)
    done = sum(weights[name] * getattr(budget.sizes, name) for name in weights)
    print(f"work of backbone and depth decoder: {1 - asked / done:.3f} of it is padding")
    if isinstance(task.train.sampler, ChunkSampler):
        drawn, tight = packed_tightly(task.train.sampler)
        print(f"an epoch: {drawn} micro-batches in the order drawn, {tight} packed the largest first")


if __name__ == "__main__":
    main()
