"""One rank of the test of ema_update over processes: python ema_worker.py RANK RANKS FOLDER."""

import sys
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor

from csm_kernels import ema_update, rvq_search

STEPS = 25


def start() -> tuple[Tensor, Tensor, Tensor]:
    """Codebooks [3, 24, 5], usage and vector_sum of a quantizer most of whose codes are far from the data."""
    codebooks = torch.randn(3, 24, 5, generator=torch.Generator().manual_seed(0))
    codebooks[:, 4:] += 50
    return codebooks, torch.zeros(3, 24), torch.zeros(3, 24, 5)


def batch(step: int) -> Tensor:
    """[83, 5], all rows of a step."""
    return torch.randn(83, 5, generator=torch.Generator().manual_seed(100 + step)) * 3


def shard(step: int, rank: int, ranks: int) -> Tensor:
    """A rank's rows: shuffled, of unequal number, none on the last rank at step 3."""
    order = torch.randperm(83, generator=torch.Generator().manual_seed(step + 1))
    bounds = [0, *(20 + 21 * place for place in range(ranks - 1)), 83]
    if step == 3:
        bounds[-2] = 83
    return batch(step)[order[bounds[rank] : bounds[rank + 1]]]


def main() -> None:
    rank, ranks, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=ranks)
    codebooks, usage, vector_sum = start()
    with mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as all_reduce:
        for step in range(STEPS):
            rows = shard(step, rank, ranks)
            ema_update(rows, rvq_search(rows, codebooks).codes, codebooks, usage, vector_sum, step=step)
    assert all_reduce.call_count == STEPS, f"{all_reduce.call_count} all-reduces in {STEPS} steps"
    torch.save((codebooks, usage, vector_sum), folder / f"rank_{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
