"""How many may speak at once: as many as the machine keeps up with, by a measurement when it starts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from csm.generation.shared_speech import SharedSteps
from csm.generation.static_turns import keep_lanes
from csm.generation.talker import Talker
from csm.serving.metrics import Metrics
from csm.system.threads import available_cores

# Share of a lane that speakers may fill: a step then takes 60 of a frame's 80 ms, and the rest is for texts
# that are run beside it.
FILLED = 0.75
TRIED = (1, 4, 16, 64)
SENTENCE = "I had a plane to catch, and no time to lose."


class Full(Exception):
    """One speaker too many; the message says so and why."""


class Admission:
    """Places for speakers.

    Args:
        places: Number of speakers at once.
        reason: The measurement behind `places`, which a refused user reads.
        metrics: Where speakers are counted.
    """

    def __init__(self, places: int, reason: str, metrics: Metrics) -> None:
        self.places, self.reason, self._metrics = places, reason, metrics
        self.taken = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Holds a place for the block.

        Raises:
            Full: All places are taken.
        """
        if self.taken >= self.places:
            self._metrics.count("refused_total")
            raise Full(f"all {self.places} places are taken ({self.reason}); try again later")
        self.taken += 1
        self._metrics.set("sessions", self.taken)
        try:
            yield
        finally:
            self.taken -= 1
            self._metrics.set("sessions", self.taken)


def lanes_of(talker: Talker) -> int:
    """Returns how many threads speak: half of the cores, the others listen; one where a GPU computes."""
    return max(1, available_cores() // 2) if talker.tokenizer.device.type == "cpu" else 1


def measured_places(talker: Talker) -> tuple[int, str]:
    """Returns how many speakers the lanes keep up with, at least 1, and the measurement in words.

    One lane is measured, with more and more speakers whose frames are made together, until they fill it.
    """
    lanes, measured = lanes_of(talker), {}
    real_time_factor(talker, 1)  # warm
    for count in TRIED:
        if talker.tokenizer.device.type != "cpu" and count > 1:
            real_time_factor(talker, count)  # graphs are made for every number of speakers
        measured[count] = real_time_factor(talker, count)
        if measured[count] > FILLED:
            break
    factors = ", ".join(f"{factor:.2f} of {count} at once" for count, factor in measured.items())
    reason = f"real-time factor {factors}; {lanes} x {FILLED:g} of a core or GPU to speak"
    places = lanes * filling(measured)
    keep_lanes(talker.model, places, bool(talker.sampling.guidance))
    return places, reason


def filling(measured: Mapping[int, float]) -> int:
    """Returns the number of speakers that fill a lane, at least 1; between two measurements by a line.

    Args:
        measured: Real-time factor by number of speakers; the last one alone may be above `FILLED`.
    """
    counts = list(measured)
    most = counts[-1]
    if measured[most] <= FILLED or len(counts) == 1:
        return most
    least = counts[-2]
    share = (FILLED - measured[least]) / (measured[most] - measured[least])
    return least + int(share * (most - least))


def real_time_factor(talker: Talker, count: int) -> float:
    """Returns the seconds in which some speakers at once, made together, speak a second each.

    They are of the processor's time on a CPU, which leaves out what other programs take, else of the clock's.
    """
    together = replace(talker, shared=SharedSteps(talker.tokenizer, expected=count, thread=False))
    clock = time.process_time if talker.tokenizer.device.type == "cpu" else time.perf_counter
    began, samples = clock(), 0
    streams = [together.generate(SENTENCE, seed=number, stream=True) for number in range(count)]
    while streams:
        chunks = [next(stream, None) for stream in streams]
        streams = [stream for stream, chunk in zip(streams, chunks, strict=True) if chunk is not None]
        samples += sum(chunk.shape[1] for chunk in chunks if chunk is not None)
    rate = talker.tokenizer.config.sample_rate
    return (clock() - began) * count * rate / max(samples, count * talker.tokenizer.config.samples_per_frame)
