"""Fixtures of the benchmarks: groups of contenders, the roofline, peers' quantizers, a summary of ratios.

The first test of a group times all its contenders in interleaved rounds (`benchmarks.interleaved`). Each test
then passes its durations to pytest-benchmark through its public interface: its timer is `recorded_time`, a
clock that only `advance` moves, and the benchmarked function advances it by the next recorded duration. The
table and the JSON file so contain the durations of the interleaved rounds.
"""

import importlib.metadata
import os
from collections.abc import Callable, Iterator

import pytest
import torch

from benchmarks.interleaved import OURS, Roofs, Timings, measured_roofs, summary, synchronise, timings_of
from csm.system.host_memory import keep_freed_memory

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
PEERS = ("vector-quantize-pytorch", "encodec", "transformers", "faiss-cpu")
# Printed with the results: other work on the same cores makes the figures meaningless.
LOAD = f"load average at the start {os.getloadavg()[0]:.1f}"

ROOFS = pytest.StashKey[dict[str, Roofs]]()
TIMINGS = pytest.StashKey[dict[str, Timings]]()

_clock = 0.0


def recorded_time() -> float:
    return _clock


def advance(durations: Iterator[float]) -> None:
    global _clock
    _clock += next(durations)


@pytest.fixture(scope="session", autouse=True)
def one_start(pytestconfig: pytest.Config) -> None:
    """Keeps freed memory, as training does, and measures the roofline before anything else runs."""
    keep_freed_memory()
    torch.manual_seed(0)
    pytestconfig.stash[TIMINGS] = {}
    pytestconfig.stash[ROOFS] = {}
    if not pytestconfig.getoption("benchmark_disable"):
        pytestconfig.stash[ROOFS] = {name: measured_roofs(torch.device(name)) for name in DEVICES}


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


@pytest.fixture
def compare(benchmark, device, pytestconfig):
    """compare(name, group, contenders, flops=, moved=, bars=, stretch=): reports one contender of a group.

    `contenders()` asserts that our operation is correct and returns {name: prepare}, ours (OURS) included.
    `prepare()` of a peer asserts that the peer computes the same, and returns the call to time. It runs once
    per group: a failed assertion about our operation fails all tests of the group, and nothing is timed. A
    peer that is not installed, cannot run on this machine or computes something else is skipped with its
    reason.

    `flops` and `moved` (bytes) are a lower bound for this contender's formula: its products; its inputs and
    outputs once. `bars` are target ratios of the peer's time to ours, `stretch` higher ones; they are
    reported and fail no test.
    """

    def report(name, group, contenders, *, flops, moved, bars, stretch=None) -> None:
        group = f"{group} [{device.type}]"
        benchmark.group = group
        known = pytestconfig.stash[TIMINGS]
        if benchmark.disabled:
            benchmark.pedantic(contenders()[OURS]())  # --benchmark-disable: only correctness
            return
        if group not in known:
            known[group] = timings_of(contenders, device)
            known[group].bars, known[group].stretch = bars, stretch or {}
        timings = known[group]
        if timings.wrong is not None:
            raise timings.wrong
        if name in timings.absent:
            pytest.skip(f"{name}: {timings.absent[name]}")
        seconds = timings.seconds[name]
        benchmark.pedantic(advance, args=(iter(seconds),), rounds=len(seconds))

        roofs = pytestconfig.stash[ROOFS][device.type]
        benchmark.extra_info.update(roofs.shares(flops, moved, timings.median(name)), **timings.ratios(name))

    return report


@pytest.fixture
def timed(benchmark, device):
    """Times a call without peers; the device is idle before and after."""

    def run(call, *, rounds: int = 7) -> None:
        def synchronised():
            call()
            synchronise(device)

        benchmark.pedantic(synchronised, rounds=rounds, warmup_rounds=2)

    return run


@pytest.fixture
def peer_quantizer(device):
    """peer_quantizer(package, codebooks, rows=None): another package's residual quantizer with our codebooks.

    The quantizer maps x [N, D] to codes [N, Q]. With `rows`, the rows of a step, it is in training mode: a
    call updates the codebooks and revives dead codes. As with ours, usage starts uniform and a code is dead
    below 0.05 of that.
    """

    def build(package: str, codebooks: torch.Tensor, rows: int | None = None) -> Callable:
        levels, size, width = codebooks.shape
        usage = (rows or size) / size
        shape = {"dim": width, "codebook_size": size, "num_quantizers": levels, "decay": 0.99}
        shape["threshold_ema_dead_code"] = 0.05 * usage
        if package == "encodec":
            from encodec.quantization.core_vq import ResidualVectorQuantization

            quantizer = ResidualVectorQuantization(**shape, kmeans_init=False)
        else:
            from vector_quantize_pytorch import ResidualVQ

            quantizer = ResidualVQ(**shape)
        quantizer.to(device).train(rows is not None)
        for layer, codebook in zip(quantizer.layers, codebooks, strict=True):
            state = layer._codebook
            state.embed.data.copy_(codebook)
            state.embed_avg.data.copy_(codebook * usage)
            state.cluster_size.data.fill_(usage)
        if package == "vector-quantize-pytorch":
            return lambda x: quantizer(x[None])[1][0]
        # [B, D, N] as a view of [N, D]: encodec rearranges it without a copy.
        if rows is None:
            return lambda x: quantizer.encode(x.T[None])[:, 0].T
        return lambda x: quantizer(x.T[None])[1][:, 0].T

    return build


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "compare" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.benchmark(timer=recorded_time))


def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict) -> None:
    machine_info["torch"], machine_info["torch_threads"] = torch.__version__, torch.get_num_threads()
    if torch.cuda.is_available():
        machine_info["gpu"] = torch.cuda.get_device_name()
    for name in PEERS:
        try:
            machine_info[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            machine_info[name] = None


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    known = config.stash.get(TIMINGS, {})
    if not known:
        return
    terminalreporter.section("peer time / our time")
    for name, roofs in config.stash.get(ROOFS, {}).items():
        rates = f"sgemm {roofs.products / 1e9:.0f} GFLOP/s, copy {roofs.copying / 1e9:.1f} GB/s"
        terminalreporter.write_line(f"roofs of {name}: {rates}; {torch.get_num_threads()} threads; {LOAD}")
    for group, timings in known.items():
        terminalreporter.write_line(f"{group}: {summary(timings)}")
