"""How many may speak at once: as many as the machine keeps up with, by a measurement when it starts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from csm.generation.talker import Talker
from csm.serving.metrics import Metrics
from csm.system.threads import available_cores

# Share of the cores that speakers may fill: listening, recognition and the network need the rest.
FILLED = 0.75
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


def measured_places(talker: Talker) -> tuple[int, str]:
    """Returns how many speakers the cores keep up with, at least 1, and the measurement in words."""
    talker.generate(SENTENCE)  # warm
    began = time.process_time()
    speech = talker.generate(SENTENCE)
    factor = (time.process_time() - began) / max(speech.timing.audio_s, 0.08)
    cores = available_cores()
    places = max(1, int(FILLED * cores / factor))
    return places, f"real-time factor {factor:.2f} on {cores} cores"
