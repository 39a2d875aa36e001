"""Shared by the benchmarks: interleaved timing of an operation and its peers, the roofs, a summary of ratios.

pytest-benchmark finishes one test before it starts the next: where a machine's speed drifts, the ratio of two
tests compares two moments. Here the first test of a group times all its contenders together: one call of each
per round, in a new random order every round. Each test then hands its own durations to pytest-benchmark, by
public ways: its timer is set to `recorded_time`, a clock that stands still, and the function that it "runs"
moves this clock by the next recorded duration. Table and JSON so show what the interleaved rounds took.
"""

import gc
import importlib.metadata
import os
import random
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import torch

from csm.system.host_memory import keep_freed_memory

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
OURS = "csm"
PEERS = ("vector-quantize-pytorch", "encodec", "transformers", "faiss-cpu")
SECONDS, LEAST, MOST = 10.0, 7, 41  # of one group: what its rounds may take, and how many there are
SHORT = 0.05  # seconds; a shorter call is repeated once, untimed, right before it is timed

# Other work on these cores makes every figure noise: a barrier waits for the thread that was set aside.
LOAD = f"load average at the start {os.getloadavg()[0]:.1f}"

_clock = 0.0


def recorded_time() -> float:
    return _clock


def advance(durations: Iterator[float]) -> None:
    global _clock
    _clock += next(durations)


@dataclass(frozen=True)
class Roofs:
    """What the machine reaches at the start of the session: fp32 products, FLOP/s, and copying, bytes/s."""

    products: float
    copying: float

    def shares(self, flops: float, moved: float, seconds: float) -> dict[str, float]:
        return {
            "bytes": int(moved),
            "flops": int(flops),
            "sgemm_gflops": round(self.products / 1e9, 1),
            "copy_gigabytes_per_second": round(self.copying / 1e9, 2),
            "share_of_sgemm": round(flops / self.products / seconds, 4),
            "share_of_copy": round(moved / self.copying / seconds, 4),
            "share_of_roof": round(max(flops / self.products, moved / self.copying) / seconds, 4),
            "median_milliseconds": round(1e3 * seconds, 4),
        }


@dataclass
class Timings:
    """What one group's interleaved rounds gave, seconds by contender, or why a contender has none."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    wrong: AssertionError | None = None
    bars: dict[str, float] = field(default_factory=dict)
    stretch: dict[str, float] = field(default_factory=dict)

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def over_ours(self, name: str) -> float:
        return self.median(name) / self.median(OURS)

    def ratios(self, name: str) -> dict[str, float | bool | None]:
        over = {peer: self.over_ours(peer) for peer in self.seconds if peer != OURS}
        if name == OURS:
            met = all(over[peer] >= bar for peer, bar in self.bars.items() if peer in over)
            return {"met": met, **{f"{peer} / ours": round(ratio, 3) for peer, ratio in over.items()}}
        bar, hoped = self.bars.get(name), self.stretch.get(name)
        row = {"peer_time_over_ours": round(over[name], 3), "bar": bar, "met": bar and over[name] >= bar}
        return {**row, "stretch": hoped, "stretch_met": over[name] >= hoped} if hoped else row


ROOFS = pytest.StashKey[dict[str, Roofs]]()
TIMINGS = pytest.StashKey[dict[str, Timings]]()


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - start


def measured_roofs(device: torch.device) -> Roofs:
    size = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, size, size, device=device)
    product = torch.empty_like(a)
    source = torch.randn(1 << 26, device=device)  # 256 MB: more than a cache holds
    target = torch.empty_like(source)

    def fastest(call: Callable[[], object]) -> float:
        # A roof is what is possible, so the least disturbed of the calls, not their median.
        return min(seconds_of(call, device) for _ in range(9))

    return Roofs(
        2 * size**3 / fastest(lambda: torch.mm(a, b, out=product)),
        2 * source.nbytes / fastest(lambda: target.copy_(source)),
    )


def interleaved(
    calls: dict[str, Callable[[], object]], costs: dict[str, float], device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each call, one of every contender per round; about SECONDS in all, by one call's costs."""
    rounds = max(LEAST, min(MOST, int(SECONDS / sum(costs.values()))))
    # On CUDA the inputs are read from memory, not from what the call before left in L2.
    flush = torch.empty(1 << 26, device=device) if device.type == "cuda" else None
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(0).shuffle
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                # The contender before may have brought its own OpenMP (FAISS does): its threads spin for some
                # milliseconds after their work. And a short call would mostly show its neighbour's caches.
                time.sleep(0.01)
                if costs[name] < SHORT:
                    calls[name]()
                if flush is not None:
                    flush.zero_()
                seconds[name].append(seconds_of(calls[name], device))
    finally:
        gc.enable()
    return seconds


def timings_of(
    contenders: Callable[[], dict[str, Callable[[], Callable[[], object]]]], device: torch.device
) -> Timings:
    result, calls, costs = Timings(), {}, {}
    try:
        prepared = contenders()
    except AssertionError as error:
        result.wrong = error
        return result
    for name, prepare in prepared.items():
        try:
            call = prepare()
            costs[name], calls[name] = seconds_of(call, device), call
        except ImportError as error:
            result.absent[name] = f"not installed: {error}"
        except (RuntimeError, AssertionError) as error:
            if name == OURS:
                raise
            result.absent[name] = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    result.seconds = interleaved(calls, costs, device)
    return result


@pytest.fixture(scope="session", autouse=True)
def one_start(pytestconfig: pytest.Config) -> None:
    """Freed memory kept, as in training, and the roofs, before anything else runs."""
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
    """compare(name, group, contenders, flops=, moved=, bars=, stretch=): one contender's row of the group.

    `contenders()` asserts that our operation is right and returns, by name, what prepares each call, ours
    (OURS) among them; what prepares a peer asserts that it computes the same. It runs once for the group: a
    failed assertion about ours fails all of the group's tests, and no time is printed. A peer that is not
    installed, cannot run here or computes something else is skipped with its reason.

    `flops` and `moved` (bytes) are what this contender's formula needs at least: its products; its inputs and
    outputs once. `bars` are the least ratios peer time / our time, `stretch` those hoped for; they are shown,
    and fail nothing.
    """

    def report(name, group, contenders, *, flops, moved, bars, stretch=None) -> None:
        group = f"{group} [{device.type}]"
        benchmark.group = group
        known = pytestconfig.stash[TIMINGS]
        if benchmark.disabled:
            benchmark.pedantic(contenders()[OURS]())  # --benchmark-disable: correctness only
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
    """Times a call that has no peers, with the device idle before and after."""

    def run(call, *, rounds: int = 7) -> None:
        def synchronised():
            call()
            synchronise(device)

        benchmark.pedantic(synchronised, rounds=rounds, warmup_rounds=2)

    return run


@pytest.fixture
def peer_quantizer(device):
    """peer_quantizer(package, codebooks, rows=None): another package's residual quantizer with our codebooks.

    It takes x [N, D] and returns codes [N, Q]. With `rows`, the rows of a step, it trains: a call moves the
    codebooks and revives dead codes. Usage starts uniform, and dead means below 0.05 of that, as with ours.
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
        # [B, D, N] as a view of [N, D]: encodec's own rearrangement then copies nothing.
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
        terminalreporter.write_line(f"{group}: {_summary(timings)}")


def _summary(timings: Timings) -> str:
    if timings.wrong is not None:
        return "wrong, not timed"
    parts = [f"ours {1e3 * timings.median(OURS):.4g} ms"]
    for name in list(timings.seconds)[1:]:
        ratio = timings.over_ours(name)
        part = f"{name} {ratio:.2f}"
        for kind, wanted in {"bar": timings.bars, "stretch": timings.stretch}.items():
            if name in wanted:
                part += f" ({kind} {wanted[name]:.3g}, {'met' if ratio >= wanted[name] else 'NOT met'})"
        parts.append(part)
    return "; ".join(parts + [f"{name} absent ({reason})" for name, reason in timings.absent.items()])
