"""A small process between a launcher and its rank, so that neither outlives the other.

A killed launcher leaves its ranks alive: DeepSpeed's passes no signal on, and a killed process cannot.
So the process that a launcher starts as a rank forks at its first lines, before anything heavy is imported.
The child becomes the rank. The parent, the supervisor, is a bare Python interpreter and watches:

- the launchers above it. Where one ends, the rank gets SIGTERM, on which it saves and stops, and SIGKILL if
  it has not stopped in time; launchers further up that would report success are ended too;
- signals. SIGTERM, SIGHUP and Ctrl-C become one request to stop; a second Ctrl-C ends the rank at once;
- the rank. Its exit status is handed on, and processes that it left are ended.

A killed supervisor takes its rank with it (PR_SET_PDEATHSIG). Elsewhere than on Linux there is no supervisor.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator

from csm.system import process_table
from csm.system.process_table import Process

# From the end of a launcher until the rank is killed: all has ended within 10 s.
ORPHAN_S = 6.0
# From a request to stop, once another rank has ended: without it nothing can be saved.
ALONE_S = 4.0
# From a request to stop. Launchers kill after 30 s: this is earlier, so that the message is ours.
REQUEST_S = 25.0
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP) if sys.platform == "linux" else ()
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
FAILED = 1


def supervise(name: str) -> None:
    """Makes this process the supervisor of a rank, which it forks; returns in the rank only.

    Returns at once where no launcher started this process (no RANK) and elsewhere than on Linux.

    Args:
        name: Of the command, in messages.
    """
    if sys.platform != "linux" or "RANK" not in os.environ:
        return
    supervisor = os.getpid()
    chain = process_table.launcher_chain(supervisor)
    if process_table.is_orphan(supervisor):  # checked after the chain was read: its end is seen here or later
        _say(
            f"{name}: the launcher of rank {os.environ['RANK']} ended before the rank began; nothing is done"
        )
        os._exit(FAILED)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    rank = os.fork()
    if rank == 0:
        _become_rank(supervisor)
        return
    os._exit(Supervisor(name, rank, chain).run())


class Supervisor:
    """Watches one rank and the launchers above it.

    Args:
        name: Of the command, in messages.
        rank: Process number of the rank, a child of this process.
        chain: Launchers above this process, the nearest first.
    """

    def __init__(self, name: str, rank: int, chain: list[Process]) -> None:
        self.name, self.rank, self.chain = name, rank, chain
        self.number = os.environ["RANK"]
        self.received: list[int] = []
        self.kill_at = float("inf")
        self.requested = self.interrupted = self.broken = False
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)

    def run(self) -> int:
        """Watches until the rank has ended; returns its exit status, 128 + N where signal N ended it."""
        with _wake_on_end_of([self.rank, *(process.pid for process in self.chain)], self.received) as wait:
            while (status := self._status()) is None:
                self._obey_signals()
                self._look_at_launchers()
                if time.monotonic() > self.kill_at:
                    _say(f"{self.name}: rank {self.number} has not stopped in time and is killed")
                    self._kill(signal.SIGKILL)
                    self.kill_at = float("inf")
                wait()
        _end_children()
        if self.interrupted:
            if status and self.number == "0":
                _say(f"{self.name}: interrupted")
            self._end_silently()
        return status

    def _status(self) -> int | None:
        pid, status = os.waitpid(self.rank, os.WNOHANG)
        while pid == 0 and self._reap_others():
            pass
        if pid == 0:
            return None
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def _reap_others(self) -> bool:
        """Clears away a grandchild that was handed to this process, if one has ended."""
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None or ended.si_pid == self.rank:
            return False
        os.waitpid(ended.si_pid, 0)
        return True

    def _obey_signals(self) -> None:
        while self.received:
            number = self.received.pop(0)
            if number == signal.SIGINT and self.interrupted:
                self._kill(signal.SIGKILL)
            if number == signal.SIGINT and not self.interrupted:
                self.interrupted = True
                self._end_runner()
            self._request()
        if self.requested and self._lost_a_sibling():
            self.kill_at = min(self.kill_at, time.monotonic() + ALONE_S)

    def _look_at_launchers(self) -> None:
        gone = [index for index, process in enumerate(self.chain) if process.ended]
        if self.broken or not gone:
            return
        self.broken = True
        for above in self.chain[gone[0] + 1 :]:
            # DeepSpeed's runner reports success where the launcher below it was killed.
            if process_table.starts_ranks(above.pid):
                _signal(above, signal.SIGTERM)
        if self.number == "0" and not self.interrupted:
            _say(f"{self.name}: the launcher ({self.chain[gone[0]].pid}) has ended; the ranks save and stop")
        self._request()
        self.kill_at = min(self.kill_at, time.monotonic() + ORPHAN_S)

    def _request(self) -> None:
        if not self.requested:
            self.requested = True
            self.kill_at = min(self.kill_at, time.monotonic() + REQUEST_S)
            self._kill(signal.SIGTERM)

    def _lost_a_sibling(self) -> bool:
        """Whether a rank that the same launcher started has ended: this one may wait for it for ever."""
        local = int(os.environ.get("LOCAL_WORLD_SIZE", os.environ.get("LOCAL_SIZE", 1)))
        if local < 2 or not self.chain:
            return False
        return len(self._siblings()) < local

    def _siblings(self) -> list[Process]:
        """The living supervisors of the same launcher, this one among them."""
        mine = _without_rank(process_table.words(os.getpid()))
        return [
            child
            for child in process_table.children(self.chain[0].pid)
            if _without_rank(process_table.words(child.pid)) == mine
        ]

    def _end_runner(self) -> None:
        """Ends DeepSpeed's runner on Ctrl-C: it would print a traceback a quarter of a second later."""
        for above in self.chain[1:]:
            if process_table.program(above.pid) in ("deepspeed", "ds", "deepspeed.launcher.runner"):
                _signal(above, signal.SIGTERM)

    def _end_silently(self) -> None:
        """Ends torchrun after Ctrl-C once no rank is left: it would print a traceback of the signal."""
        if not self.chain or process_table.program(self.chain[0].pid) not in (
            "torchrun",
            "torch.distributed.run",
        ):
            return
        others = [child.pid for child in self._siblings() if child.pid != os.getpid()]
        if not any(process_table.children(pid) for pid in others):
            _signal(self.chain[0], signal.SIGKILL)

    def _kill(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.rank, number)


def _become_rank(supervisor: int) -> None:
    """In the child: ends with its supervisor, which alone handles Ctrl-C."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != supervisor:  # it ended before the line above
        os._exit(FAILED)
    # Where a rank has ended, torch prints the C++ frames of every connection to it; errors remain.
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


@contextlib.contextmanager
def _wake_on_end_of(pids: list[int], received: list[int]) -> Iterator[Callable[[], None]]:
    """Yields a function that waits until a signal comes, one of `pids` ends, or 0.2 s are over."""
    ignored = {number for number in SIGNALS if signal.getsignal(number) == signal.SIG_IGN}
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in SIGNALS:
        if number not in ignored:
            signal.signal(number, lambda number, _: received.append(number))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    for pid in pids:
        # Not everywhere, and not for a process that has ended: the table is read every time besides.
        with contextlib.suppress(OSError, AttributeError):
            poll.register(os.pidfd_open(pid), select.POLLIN)

    def wait() -> None:
        for descriptor, _ in poll.poll(200):
            if descriptor == reader:
                os.read(reader, 4096)
            else:
                poll.unregister(descriptor)

    yield wait


def _end_children() -> None:
    """Ends what the rank left behind: SIGTERM, a second to obey, SIGKILL."""
    for number, seconds in ((signal.SIGTERM, 1.0), (signal.SIGKILL, 1.0)):
        deadline = time.monotonic() + seconds
        left = process_table.children(os.getpid())
        for child in left:
            _signal(child, number)
        while left and time.monotonic() < deadline:
            time.sleep(0.05)
            left = process_table.children(os.getpid())
        if not left:
            return


def _without_rank(line: list[str]) -> list[str]:
    return [word for word in line if not word.startswith("--local_rank=")]


def _signal(target: Process, number: int) -> None:
    if not target.ended:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(target.pid, number)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _say(message: str) -> None:
    with contextlib.suppress(OSError):  # the reader of stderr may have ended with the launcher
        print(message, file=sys.stderr, flush=True)
