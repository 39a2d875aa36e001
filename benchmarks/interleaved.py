"""Timing of an operation and its peers in interleaved rounds, and the machine's roofline.

The speed of a machine drifts. pytest-benchmark finishes one test before the next, so the ratio of two tests
would compare two moments. Here all contenders of a group run once per round, in a new random order every
round.
"""

import gc
import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

OURS = "csm"
SECONDS, LEAST, MOST = 10.0, 7, 41  # per group: time for its rounds, least and largest number of rounds
SHORT = 0.05  # seconds; before a shorter call is timed it runs once untimed


@dataclass(frozen=True)
class Roofs:
    """The roofline of the machine, measured at the start of the session.

    Attributes:
        products: Throughput of fp32 matrix products in FLOP/s.
        copying: Throughput of copying in bytes/s.
    """

    products: float
    copying: float

    def shares(self, flops: float, moved: float, seconds: float) -> dict[str, float]:
        """Returns the row of a call: its work, and its speed as a share of the roofline."""
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
    """The results of one group.

    Attributes:
        seconds: Durations of each contender in seconds, one per round.
        absent: Reason for each contender that could not be timed.
        wrong: Failed assertion about our operation; nothing is timed then.
        bars: Target ratio of each peer's time to ours.
        stretch: Higher target ratio of some peers.
    """

    seconds: dict[str, list[float]] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    wrong: AssertionError | None = None
    bars: dict[str, float] = field(default_factory=dict)
    stretch: dict[str, float] = field(default_factory=dict)

    def median(self, name: str) -> float:
        """Returns the median duration of a contender in seconds."""
        return statistics.median(self.seconds[name])

    def over_ours(self, name: str) -> float:
        """Returns the ratio of a peer's median duration to ours."""
        return self.median(name) / self.median(OURS)

    def ratios(self, name: str) -> dict[str, float | bool | None]:
        """Returns the ratios and targets of a contender's row."""
        over = {peer: self.over_ours(peer) for peer in self.seconds if peer != OURS}
        if name == OURS:
            met = all(over[peer] >= bar for peer, bar in self.bars.items() if peer in over)
            return {"met": met, **{f"{peer} / ours": round(ratio, 3) for peer, ratio in over.items()}}
        bar, hoped = self.bars.get(name), self.stretch.get(name)
        row = {"peer_time_over_ours": round(over[name], 3), "bar": bar, "met": bar and over[name] >= bar}
        return {**row, "stretch": hoped, "stretch_met": over[name] >= hoped} if hoped else row


def synchronise(device: torch.device) -> None:
    """Waits until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(call: Callable[[], object], device: torch.device) -> float:
    """Returns the duration of one call in seconds."""
    synchronise(device)
    start = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - start


def measured_roofs(device: torch.device) -> Roofs:
    """Measures the roofline of a device."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = torch.randn(2, size, size, device=device)
    product = torch.empty_like(a)
    source = torch.randn(1 << 26, device=device)  # 256 MB, more than any cache
    target = torch.empty_like(source)

    def fastest(call: Callable[[], object]) -> float:
        # The minimum, not the median: the roofline is an upper bound of the speed.
        return min(seconds_of(call, device) for _ in range(9))

    return Roofs(
        2 * size**3 / fastest(lambda: torch.mm(a, b, out=product)),
        2 * source.nbytes / fastest(lambda: target.copy_(source)),
    )


def interleaved(
    calls: dict[str, Callable[[], object]], costs: dict[str, float], device: torch.device
) -> dict[str, list[float]]:
    """Returns the seconds of each call, one per contender and round; `costs` are seconds of a first call."""
    rounds = max(LEAST, min(MOST, int(SECONDS / sum(costs.values()))))
    # Writing 256 MB evicts the inputs from the L2 cache.
    flush = torch.empty(1 << 26, device=device) if device.type == "cuda" else None
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    order, shuffle = list(calls), random.Random(0).shuffle
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            shuffle(order)
            for name in order:
                # Threads of another OpenMP runtime (FAISS has its own) spin for some milliseconds after a
                # call.
                time.sleep(0.01)
                if costs[name] < SHORT:  # warms caches that the contender before has filled
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
    """Prepares and times the contenders of a group; a peer that cannot run is recorded with its reason."""
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


def summary(timings: Timings) -> str:
    """Returns the ratios of a group in one line."""
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
