"""Shared by the benchmarks: a quiet, repeatable start, and what the machine can do at all."""

import statistics
import time

import pytest
import torch

from csm.host_memory import keep_freed_memory

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.fixture(scope="session", autouse=True)
def one_start() -> None:
    """The same random inputs each time; freed memory kept, as in training."""
    keep_freed_memory()
    torch.manual_seed(0)


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture(scope="session")
def gemm_rate() -> float:
    """Measured fp32 matrix rate of this machine now, FLOP/s: the roof of a search by products."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    times = []
    for _ in range(9):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * 1024**3 / statistics.median(times)


@pytest.fixture
def timed(benchmark, device, gemm_rate):
    """Times a call with the device idle before and after, and notes its share of the measured roof."""

    def run(call, *, flops: float = 0.0, rounds: int = 7) -> None:
        def synchronised():
            call()
            if device.type == "cuda":
                torch.cuda.synchronize()

        benchmark.pedantic(synchronised, rounds=rounds, warmup_rounds=2)
        if flops and device.type == "cpu":
            benchmark.extra_info["share_of_gemm"] = round(flops / benchmark.stats["median"] / gemm_rate, 3)
            benchmark.extra_info["gemm_gflops"] = round(gemm_rate / 1e9, 1)

    return run
