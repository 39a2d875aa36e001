"""Kernels are launched on the device of their tensors, whatever device is current."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from csm_kernels import device

pytest.importorskip("triton")
from csm_kernels.ema_update import triton_kernel as update  # noqa: E402
from csm_kernels.interpolated_attention import triton_kernel as attention  # noqa: E402
from csm_kernels.rvq_search import triton_kernel as search  # noqa: E402

KERNELS = {
    search: ("_lay_out", "_pair", "_search_levels", "_search_scanned", "_search_split"),
    update: ("_largest", "_accumulate", "_draw", "_write_candidates", "_move_usage", "_move_vectors"),
    attention: ("_place_runs",),
}


def test_the_device_of_a_tensor_on_another_gpu_is_current_inside_and_no_longer_outside(monkeypatch):
    current = [torch.device("cuda:0")]

    @contextmanager
    def entered(chosen: torch.device) -> Iterator[None]:
        current.append(chosen)
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device", entered)
    seen = device.launches(lambda x, more: (current[-1], more))(
        SimpleNamespace(is_cuda=True, device=torch.device("cuda:1")), more=3
    )
    assert seen == (torch.device("cuda:1"), 3) and current == [torch.device("cuda:0")]


def test_every_kernel_of_every_operation_is_launched_inside(monkeypatch):
    inside, launched = [False], set()

    @contextmanager
    def guard(x: Tensor) -> Iterator[None]:
        before, inside[0] = inside[0], True
        yield
        inside[0] = before

    class Recorder:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            return functools.partial(self.launch, self.name)

        @staticmethod
        def launch(name: str, *_: object, **__: object) -> None:
            assert inside[0], name
            launched.add(name)

    monkeypatch.setattr(device, "on_device", guard)
    for module, names in KERNELS.items():
        for name in names:
            monkeypatch.setattr(module, name, Recorder(name))
    three = ("attend", "query_gradients", "key_gradients")
    monkeypatch.setattr(attention, "_KERNELS", {name: Recorder(name) for name in three})
    x, codebooks = torch.zeros(5, 8), torch.zeros(2, 7, 8)
    codes = torch.zeros(5, 2, dtype=torch.int64)
    outputs = search.allocate(x, codebooks)
    for kernel in ("levels", "scan", "split"):
        search.launch(x, codebooks, *outputs, kernel=kernel)
    flat = update.statistics(x, codes, codebooks, codes[:, 0], torch.tensor(1), 1, 0, 3)
    update.apply(flat, codebooks, torch.zeros(2, 7), torch.zeros_like(codebooks), 1, 3, 0.9, 1e-5, 0.05)
    q, bounds = torch.zeros(5, 2, 32), torch.tensor([0, 5])
    packing = bounds, bounds, bounds[1:], bounds[:1], None, 1.0
    output, lse = attention.attend(q, q, q, *packing)
    attention.attend_backward(q, output, lse, q, q, q, *packing)
    assert launched == {name for names in KERNELS.values() for name in names} | set(three)


def test_a_grid_has_at_most_the_programs_that_cuda_launches_on_each_axis() -> None:
    assert device.grid(2**31 - 1, 65_535, 65_535) == (2**31 - 1, 65_535, 65_535) and device.grid(7) == (7,)
    for programs in [(2**31,), (1, 65_536), (1, 1, 65_536)]:
        with pytest.raises(ValueError, match=f"{programs[-1]} programs on axis {len(programs) - 1}"):
            device.grid(*programs)


@pytest.mark.cuda
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_the_second_gpu_gives_the_bits_of_the_first():
    generator = torch.Generator().manual_seed(0)
    x, codebooks = torch.randn(70, 16, generator=generator), torch.randn(3, 90, 16, generator=generator)
    first, second = (search.search(x.to(place), codebooks.to(place), None) for place in ("cuda:0", "cuda:1"))
    assert all(torch.equal(a.cpu(), b.cpu()) for a, b in zip(first, second, strict=True))
