"""No kernel depends on the order in which its programs run: a shuffled order gives the same bits.

Triton's interpreter runs programs one after another; here in another order. On a GPU the hardware chooses it.
"""

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")
from triton.runtime import interpreter  # noqa: E402

from csm_kernels.ema_update import triton_kernel as update  # noqa: E402
from csm_kernels.interpolated_attention import triton_kernel as attention  # noqa: E402
from csm_kernels.rvq_search import triton_kernel as search  # noqa: E402

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="programs run on the GPU, in its order")
Place = tuple[int, int, int]


def shuffled(place: Place, grid: Place) -> Place:
    order = list(range(grid[0] * grid[1] * grid[2]))
    random.Random(5).shuffle(order)
    number = order[(place[0] * grid[1] + place[1]) * grid[2] + place[2]]
    return number // (grid[1] * grid[2]), number // grid[2] % grid[1], number % grid[2]


def searched(kernel: search.Kernel) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, codebooks = torch.randn(70, 16, generator=generator), torch.randn(2, 70, 16, generator=generator)
    outputs = search.allocate(x, codebooks)
    search.launch(x, codebooks, *outputs, kernel=kernel)
    return list(outputs)


def updated() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    x, codebooks = torch.randn(40, 70, generator=generator), torch.randn(2, 40, 70, generator=generator)
    codes = torch.randint(0, 40, (40, 2), generator=generator)
    state = (
        codebooks.clone(),
        torch.rand(2, 40, generator=generator),
        torch.randn(2, 40, 70, generator=generator),
    )
    flat = update.statistics(x, codes, codebooks, torch.full((40,), 2), torch.tensor(4), 1, 0, 8)
    update.apply(flat, *state, 1, 8, 0.9, 1e-5, 0.05)
    return [flat, *state]


def attended(window: int | None) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    q, g = (torch.randn(40, 1, 32, generator=generator) for _ in range(2))
    k, v = (torch.randn(20, 1, 32, generator=generator) for _ in range(2))
    ends_q, ends_k = torch.tensor([0, 34, 34, 40]), torch.tensor([0, 17, 18, 20])
    packing = ends_q, ends_k, ends_q.diff(), torch.zeros(3, dtype=torch.int64), window, 0.2
    output, lse = attention.attend(q, k, v, *packing)
    return [output, lse, *attention.attend_backward(g, output, lse, q, k, v, *packing)]


CALLS: list[Callable[[], list[Tensor]]] = [
    lambda: searched("levels"),
    lambda: searched("scan"),
    lambda: searched("split"),
    updated,
    lambda: attended(None),
    lambda: attended(5),
]


@pytest.mark.parametrize("call", CALLS, ids=["levels", "scan", "split", "update", "attention", "window"])
def test_any_order_of_programs_gives_the_same_bits(call, monkeypatch):
    expected = call()
    place_program = interpreter.InterpreterBuilder.set_grid_idx
    moved, places = 0, set()

    def elsewhere(self, x, y, z):
        nonlocal moved
        place = shuffled((x, y, z), self.grid_dim)
        moved += place != (x, y, z)
        places.add((place, tuple(self.grid_dim)))
        place_program(self, *place)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "set_grid_idx", elsewhere)
    found = call()
    assert moved and len(places) == sum(x * y * z for x, y, z in {grid for _, grid in places})
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
