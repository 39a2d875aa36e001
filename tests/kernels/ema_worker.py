"""The ranks of the test of ema_update over processes: python ema_worker.py FOLDER.

Torch is imported once, then a process is forked for each rank.
"""

import os
import sys
import traceback
from pathlib import Path
from unittest import mock

import torch
import torch.distributed as dist
from torch import Tensor

from csm_kernels import REVIVALS_PER_STEP, ema_update, native, rvq_search
from csm_kernels.ema_update.message import message_size

STEPS, MOST_RANKS, ROWS = 100, 4, 83
LEVELS, SIZE, WIDTH = 3, 24, 5
# What would be more than the one message of a step.
OTHERS = ("all_gather", "all_gather_into_tensor", "broadcast", "reduce", "gather", "scatter", "all_to_all")
OTHERS += ("all_gather_object", "broadcast_object_list", "reduce_scatter", "barrier")


def start() -> tuple[Tensor, Tensor, Tensor]:
    """Codebooks, usage and vector_sum of a quantizer most of whose codes are far from the data."""
    codebooks = torch.randn(LEVELS, SIZE, WIDTH, generator=torch.Generator().manual_seed(0))
    codebooks[:, 4:] += 50
    return codebooks, torch.zeros(LEVELS, SIZE), torch.zeros(LEVELS, SIZE, WIDTH)


def batch(step: int) -> Tensor:
    """[ROWS, WIDTH], all rows of a step."""
    return torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(100 + step)) * 3


def shard(step: int, rank: int, ranks: int) -> Tensor:
    """A rank's rows: shuffled, of unequal number, none on the last of several ranks at every tenth step."""
    order = torch.randperm(ROWS, generator=torch.Generator().manual_seed(step + 1))
    bounds = [0, *(17 + 21 * place for place in range(ranks - 1)), ROWS]
    if step % 10 == 3 and ranks > 1:
        bounds[-2] = ROWS
    return batch(step)[order[bounds[rank] : bounds[rank + 1]]]


def train(rank: int, ranks: int, group: dist.ProcessGroup) -> tuple[Tensor, Tensor, Tensor]:
    """The state after STEPS steps of a group; its ranks run different implementations."""
    kinds = ["blocked", "reference", *(["cpu"] if native.instruction_sets() else [])]
    codebooks, usage, vector_sum = state = start()
    with mock.patch.object(dist, "all_reduce", wraps=dist.all_reduce) as all_reduce:
        for step in range(STEPS):
            rows, impl = shard(step, rank, ranks), kinds[(rank - ranks) % len(kinds)]
            codes = rvq_search(rows, codebooks).codes
            ema_update(rows, codes, codebooks, usage, vector_sum, step=step, group=group, impl=impl)
    assert all_reduce.call_count == STEPS, f"{all_reduce.call_count} all-reduces in {STEPS} steps"
    size = message_size(LEVELS, SIZE, WIDTH, ranks, min(SIZE, REVIVALS_PER_STEP))
    assert all(call.args[0].numel() == size for call in all_reduce.call_args_list)
    return state


def work(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=(folder / "store").as_uri(), rank=rank, world_size=MOST_RANKS)
    groups = [dist.new_group(list(range(ranks))) for ranks in range(1, MOST_RANKS + 1)]
    forbidden = {name: mock.Mock(side_effect=AssertionError(name)) for name in OTHERS}
    with mock.patch.multiple(dist, **forbidden):
        for ranks, group in enumerate(groups, start=1):
            if rank < ranks:
                torch.save(train(rank, ranks, group), folder / f"rank_{rank}_of_{ranks}.pt")
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    children = []
    for rank in range(MOST_RANKS):
        child = os.fork()
        if child == 0:
            try:
                work(rank, Path(sys.argv[1]))
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        children.append(child)
    statuses = [os.waitpid(child, 0)[1] for child in children]
    sys.exit(f"the ranks ended with {statuses}" if any(statuses) else 0)


if __name__ == "__main__":
    main()
