"""Ranks that show each other that they run: a rank that hangs is named, and the others end.

A rank that is stopped or swapped out, or whose machine is gone, leaves the others waiting in a collective,
whose time limit is an hour because one rank may validate for long. So each rank writes a number into the
store of the process group every few seconds, from a thread of its own, whatever its main thread does.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from datetime import timedelta

from torch.distributed import TCPStore

from csm.system import process_table

# Seconds between two beats, and silent beats until a rank counts as hung: a minute. Beats are counted rather
# than seconds: a run that was paused as a whole (Ctrl-Z) has missed none.
BEAT_S, SILENT_BEATS = 5.0, 12
# Exit status of a rank that ends because another one hangs (EX_TEMPFAIL: the same command may be run again).
HUNG = 75
# Exit status of a rank that ends because another one has failed.
FAILED = 1
_LEFT, _FAILED = b"left", b"failed"


class Heartbeat:
    """Two threads of one rank: one exchanges beats through the store, the other watches the first.

    Args:
        rank, size: Of this process, and of the run.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.stopping, self.ending = threading.Event(), threading.Event()
        self.exchanges = 0
        self.last = _LEFT
        self.supervisor = process_table.process(os.getppid())
        self.threads = [threading.Thread(target=work, daemon=True) for work in (self._beat, self._watch)]
        for thread in self.threads:
            thread.start()

    def leave(self, *, failed: bool = False) -> None:
        """Ends the threads; the other ranks no longer expect this one, or end too where it has failed."""
        self.last = _FAILED if failed else _LEFT
        self.stopping.set()
        for thread in self.threads:
            thread.join(5.0)
        if failed and self.rank == 0:
            time.sleep(2 * BEAT_S)  # the others read the store once more, which may end with this rank

    def _beat(self) -> None:
        try:
            self._exchange()
        except RuntimeError:
            # The rank that keeps the store has ended. What waits for it in a collective fails, or is ended by
            # the launcher; this thread has nothing to add.
            self.stopping.set()

    def _exchange(self) -> None:
        """Writes this rank's beats and reads those of the others."""
        store = _connected(timedelta(hours=1))
        keys = [f"csm/heartbeat/{rank}" for rank in range(self.size)]
        seen: dict[int, bytes] = {}
        silent = dict.fromkeys(range(self.size), 0)
        while not self.stopping.is_set():
            if not self._supervisor_stopped():  # this rank is then about to end: the others may name it
                store.set(keys[self.rank], str(self.exchanges + 1))
            for rank, key in enumerate(keys):
                value = store.get(key) if store.check([key]) else b""
                silent[rank] = silent[rank] + 1 if value == seen.get(rank) and value != _LEFT else 0
                seen[rank] = value
            self.exchanges += 1
            if failed := [rank for rank, value in seen.items() if value == _FAILED and rank != self.rank]:
                self._say_failed(failed)
                self._exit(FAILED)
            hung = [rank for rank, count in silent.items() if count >= SILENT_BEATS and rank != self.rank]
            if hung:
                self._end(f"rank {', '.join(map(str, hung))} has not answered for {_seconds()} s: it hangs")
            self.stopping.wait(BEAT_S)
        store.set(keys[self.rank], self.last.decode())

    def end_if_another_failed(self) -> None:
        """Ends this process where the store says that another rank has failed; else returns."""
        if not self.ending.is_set():
            try:
                store = _connected(timedelta(seconds=2))
                keys = {rank: f"csm/heartbeat/{rank}" for rank in range(self.size) if rank != self.rank}
                failed = [r for r, key in keys.items() if store.check([key]) and store.get(key) == _FAILED]
            except RuntimeError:
                return  # the store has ended
            if not failed:
                return
            if not self.ending.is_set():
                self._say_failed(failed)
                self._exit(FAILED)
        threading.Event().wait()  # the other thread ends the process

    def _say_failed(self, ranks: list[int]) -> None:
        self.ending.set()
        named = ", ".join(map(str, ranks))
        self._say(f"rank {named} has failed, for the reason that it gave; this rank ends")

    def _watch(self) -> None:
        """Ends this rank where the store does not answer, or where its own supervisor is stopped."""
        before, silent, stopped = -1, 0, 0
        while not self.stopping.wait(BEAT_S):
            silent = silent + 1 if self.exchanges == before else 0
            before = self.exchanges
            stopped = stopped + 1 if self._supervisor_stopped() else 0
            if silent > SILENT_BEATS and self.threads[0].is_alive():
                host = "the launcher" if _launcher_keeps_store() else "rank 0"
                self._end(f"{host}, which keeps the store, has not answered for {_seconds()} s: it hangs")
            if stopped > SILENT_BEATS and self.supervisor is not None:
                self._say(f"its supervisor (process {self.supervisor.pid}) is stopped: both end")
                os.kill(self.supervisor.pid, 9)

    def _supervisor_stopped(self) -> bool:
        return self.supervisor is not None and self.supervisor.stopped

    def _end(self, reason: str) -> None:
        self._say(f"{reason}; this rank ends. The same command resumes after the last checkpoint")
        self._exit(HUNG)

    def _exit(self, status: int) -> None:
        self.ending.set()
        if self.rank == 0 or status == FAILED:
            # Rank 0 as in `leave`. A launcher ends all at the first end: the one that failed is to have said
            # its line by then, for which it waits two beats itself.
            time.sleep((3 if status == FAILED else 2) * BEAT_S)
        os._exit(status)

    def _say(self, text: str) -> None:
        print(f"rank {self.rank}: {text}", file=sys.stderr, flush=True)


_heartbeats: list[Heartbeat] = []


def start_heartbeat(rank: int, size: int) -> None:
    """Starts the heartbeat of this rank."""
    _heartbeats.append(Heartbeat(rank, size))


def stop_heartbeat(*, failed: bool = False) -> None:
    """Ends it; the process is about to leave the others, which end too where it has failed."""
    while _heartbeats:
        _heartbeats.pop().leave(failed=failed)


def end_with_the_others() -> None:
    """Ends this process where another rank has said that it failed; returns where none has.

    A collective breaks when the process of the rank that failed ends, perhaps before a beat has read of it.
    """
    for beats in _heartbeats:
        beats.end_if_another_failed()


def _connected(timeout: timedelta) -> TCPStore:
    """A connection of its own: one that waits for a key elsewhere would hold it up."""
    place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    return TCPStore(*place, is_master=False, timeout=timeout, wait_for_workers=False)


def _launcher_keeps_store() -> bool:
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def _seconds() -> int:
    return round(BEAT_S * SILENT_BEATS)
