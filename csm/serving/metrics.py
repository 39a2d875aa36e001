"""Counters, gauges and histograms in Prometheus' text format."""

from __future__ import annotations

import threading
from bisect import bisect_left

WAITS = (0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 5.0)
BUCKETS = {
    "gap_seconds": WAITS,
    "first_audio_seconds": WAITS,
    "batch_size": (1, 2, 4, 8, 16, 32, 64),
    "step_seconds": (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32),
}
HELP = {
    "sessions": ("gauge", "Speakers at the moment."),
    "places": ("gauge", "Most speakers at once."),
    "resident_bytes": ("gauge", "Resident memory of the server's process."),
    "conversations_total": ("counter", "Conversations begun."),
    "refused_total": ("counter", "Requests refused because all sessions were taken."),
    "bad_requests_total": ("counter", "Requests that were refused as wrong."),
    "underruns_total": ("counter", "Times at which a reply had no audio in time."),
    "barge_ins_total": ("counter", "Replies that a user stopped."),
    "gap_seconds": ("histogram", "From the user's last sound to the reply's first sample."),
    "first_audio_seconds": ("histogram", "From a request for speech to its first audio."),
    "batch_size": ("histogram", "Speeches that share a step, which gives each a frame of 0.08 s."),
    "step_seconds": ("histogram", "Time of a step; longer than a frame, speeches fall behind."),
}


class Metrics:
    """The server's numbers; safe from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values = {name: 0.0 for name, (kind, _) in HELP.items() if kind != "histogram"}
        self._observed: dict[str, list[int]] = {
            name: [0] * (len(limits) + 1) for name, limits in BUCKETS.items()
        }
        self._sums = dict.fromkeys(self._observed, 0.0)

    def count(self, name: str) -> None:
        """Adds 1 to a counter."""
        with self._lock:
            self._values[name] += 1

    def set(self, name: str, value: float) -> None:
        """Sets a gauge."""
        with self._lock:
            self._values[name] = value

    def observe(self, name: str, value: float) -> None:
        """Enters a time in seconds, or a number, into a histogram."""
        with self._lock:
            self._observed[name][bisect_left(BUCKETS[name], value)] += 1
            self._sums[name] += value

    def text(self) -> str:
        """Returns all of them as /metrics shows them."""
        with self._lock:
            lines = []
            for name, (kind, meaning) in HELP.items():
                lines += [f"# HELP csm_{name} {meaning}", f"# TYPE csm_{name} {kind}"]
                lines += (
                    self._histogram(name) if kind == "histogram" else [f"csm_{name} {self._values[name]:g}"]
                )
        return "\n".join(lines) + "\n"

    def _histogram(self, name: str) -> list[str]:
        lines, total = [], 0
        for limit, count in zip((*map(str, BUCKETS[name]), "+Inf"), self._observed[name], strict=True):
            total += count
            lines.append(f'csm_{name}_bucket{{le="{limit}"}} {total}')
        return [*lines, f"csm_{name}_sum {self._sums[name]:g}", f"csm_{name}_count {total}"]
