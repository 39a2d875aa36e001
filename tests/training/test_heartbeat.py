"""A rank that hangs is named, and the others end; a paused run and a rank that has left are no hang."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from csm.training import heartbeat
from csm.training.distributed import failing_together

pytestmark = pytest.mark.processes


class Ranks:
    """Three forks of this process whose main threads wait, as in a collective; rank 0 keeps the store."""

    def __init__(self, folder: Path, *, leaves: int | None = None, fails: int | None = None) -> None:
        self.folder, self.status = folder, {}
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(server.getsockname()[1]))
        self.pids = [self._fork(rank, rank == leaves, rank == fails) for rank in range(3)]
        deadline = time.monotonic() + 20
        while len(list(folder.glob("began_*"))) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def _fork(self, rank: int, leaves: bool, fails: bool) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            sys.stderr = (self.folder / f"stderr_{rank}").open("w")
            if rank == 0:
                port = int(os.environ["MASTER_PORT"])
                store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)  # noqa: F841
            heartbeat.start_heartbeat(rank, 3)
            beats = heartbeat._heartbeats[0]
            while beats.exchanges < 5:  # everybody has seen everybody
                time.sleep(0.05)
            if leaves:
                heartbeat.stop_heartbeat()
            (self.folder / f"began_{rank}").touch()
            if fails:
                while len(list(self.folder.glob("began_*"))) < 3:
                    time.sleep(0.05)
                time.sleep(0.3)  # the test sees it
                with failing_together():
                    raise ValueError("a file is damaged")
            time.sleep(0 if leaves else 60)
        except ValueError:
            os._exit(2)
        finally:
            os._exit(0)

    def send(self, rank: int, number: int) -> None:
        os.kill(self.pids[rank], number)

    def runs(self, rank: int) -> bool:
        if rank not in self.status:
            pid, status = os.waitpid(self.pids[rank], os.WNOHANG)
            if pid:
                self.status[rank] = os.waitstatus_to_exitcode(status)
        return rank not in self.status

    def ends(self, *ranks: int) -> list[int]:
        deadline = time.monotonic() + 15
        while any([self.runs(rank) for rank in ranks]):
            assert time.monotonic() < deadline, [self.text(rank) for rank in ranks]
            time.sleep(0.05)
        return [self.status[rank] for rank in ranks]

    def text(self, rank: int) -> str:
        return (self.folder / f"stderr_{rank}").read_text()


@pytest.fixture
def ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.1)  # 50 times as fast
    monkeypatch.setenv("MASTER_ADDR", "")
    monkeypatch.setenv("MASTER_PORT", "")
    made: list[Ranks] = []

    def start(**options: int) -> Ranks:
        made.append(Ranks(tmp_path, **options))
        return made[-1]

    yield start
    for one in made:
        for rank in range(3):
            if one.runs(rank):
                one.send(rank, signal.SIGKILL)
                os.waitpid(one.pids[rank], 0)


@pytest.mark.parametrize("hung", [0, 2])
def test_a_rank_that_hangs_is_named_by_all_others_which_end(ranks, hung: int) -> None:
    run = ranks()
    run.send(hung, signal.SIGSTOP)
    others = [rank for rank in range(3) if rank != hung]
    assert run.ends(*others) == [heartbeat.HUNG, heartbeat.HUNG]
    assert all(f"rank {hung}" in run.text(rank).partition(": ")[2] for rank in others)
    assert all("it hangs; this rank ends. The same command resumes" in run.text(rank) for rank in others)


def test_a_rank_that_left_and_a_pause_of_all_are_no_hang(ranks) -> None:
    run = ranks(leaves=2)
    for rank in (0, 1):
        run.send(rank, signal.SIGSTOP)
    time.sleep(2.5)  # longer than a rank may be silent
    for rank in (0, 1):
        run.send(rank, signal.SIGCONT)
    time.sleep(1.8)
    assert run.runs(0) and run.runs(1), (run.text(0), run.text(1))
    assert run.ends(2) == [0]


@pytest.mark.parametrize("failing", [0, 1])
def test_where_one_rank_fails_the_others_end_with_one_line(ranks, failing: int) -> None:
    run = ranks(fails=failing)
    others = [rank for rank in range(3) if rank != failing]
    assert run.ends(failing, *others) == [2, heartbeat.FAILED, heartbeat.FAILED]
    line = f"rank {failing} has failed, for the reason that it gave; this rank ends"
    assert [run.text(rank) for rank in others] == [f"rank {rank}: {line}\n" for rank in others]
