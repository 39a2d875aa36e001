"""Whichever process between a command and its ranks ends, all end: launchers are doubles, signals are real.

`tests/soak.py` does the same to DeepSpeed's own launcher and to torchrun, with a training.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from csm.system import process_table, supervisor

CHAIN = Path(__file__).with_name("chain")
# The name that a double runs under is what the process table shows.
DOUBLES = {"deepspeed": "runner.py", "torchrun": "launcher.py", "srun": "launcher.py"}
ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="supervisors are for Linux")


class Chain:
    """A command that starts ranks through two launchers (or one, or none of ours)."""

    def __init__(self, folder: Path, *launchers: str, importing: float = 0.0, **environment: str) -> None:
        self.folder = folder
        words = [str(shutil.copy(CHAIN / DOUBLES[name], folder / name)) for name in launchers]
        words.append(str(CHAIN / "rank.py"))
        self.log = (folder / "log").open("w+")
        kept = {name: value for name, value in os.environ.items() if name != "RANK"}
        self.top = subprocess.Popen(
            [sys.executable, *words, str(folder), str(importing)],
            env={**kept, "PYTHONPATH": str(ROOT), **environment},
            stdout=self.log,
            stderr=self.log,
            start_new_session=True,
        )

    def wait_for(self, *names: str) -> Chain:
        deadline = time.monotonic() + 30
        while not all((self.folder / name).exists() for name in names):
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.02)
        return self

    def trains(self) -> Chain:
        return self.wait_for("trains_0", "trains_1")

    def alive(self) -> list[int]:
        """Numbers of the processes that work on this folder, by the process table."""
        numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        ours = [number for number in numbers if str(self.folder) in process_table.words(number)]
        return [number for number in ours if not (p := process_table.process(number)) or p.state not in "ZX"]

    def pid(self, which: str) -> int:
        rank = int((self.folder / "rank_1").read_text())
        guard, launcher = (above.pid for above in process_table.ancestors(rank)[:2])
        return {"top": self.top.pid, "launcher": launcher, "supervisor": guard, "rank": rank}[which]

    def ends(self, seconds: float = 10.0) -> int:
        """Waits until no process is left; returns the exit status of the topmost."""
        deadline = time.monotonic() + seconds
        status = self.top.poll()
        while status is None or self.alive():
            assert time.monotonic() < deadline, (status, self.alive(), self.text())
            time.sleep(0.02)
            status = self.top.poll()
        return status

    def saved(self) -> bool:
        return all((self.folder / f"saved_{number}").exists() for number in "01")

    def text(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[object]:
    made: list[Chain] = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it in the background

    def start(*launchers: str, **options: object) -> Chain:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Chain(folder, *launchers, **options))  # type: ignore[arg-type]
        return made[-1]

    yield start
    signal.signal(signal.SIGINT, before)
    for one in made:
        for pid in one.alive():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        one.top.wait()
        one.log.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
@pytest.mark.parametrize("victim", ["top", "launcher", "supervisor", "rank"])
def test_whichever_process_ends_all_end_and_only_a_request_to_stop_reports_success(
    chain, victim: str, number: signal.Signals
) -> None:
    run = chain("deepspeed", "torchrun").trains()
    os.kill(run.pid(victim), number)
    status = run.ends()
    asked = number == signal.SIGTERM and victim in ("supervisor", "rank")
    assert (status == 0) == asked, run.text()
    # Ranks lose their work only where one of them was killed.
    assert run.saved() or (number == signal.SIGKILL and victim in ("supervisor", "rank")), run.text()


@pytest.mark.parametrize("victim", ["top", "launcher", "supervisor", "rank"])
def test_a_process_that_ends_while_ranks_still_import_ends_all(chain, victim: str) -> None:
    run = chain("deepspeed", "torchrun", importing=60.0).wait_for("rank_0", "rank_1")
    os.kill(run.pid(victim), signal.SIGKILL)
    assert run.ends() != 0


@pytest.mark.parametrize("after", [0.0, 0.02, 0.04, 0.06, 0.08, 0.12, 0.16])
def test_a_launcher_that_is_killed_at_any_moment_of_the_start_leaves_no_process(chain, after: float) -> None:
    run = chain("deepspeed", "torchrun", importing=60.0)
    launcher: list[process_table.Process] = []
    while not launcher and run.top.poll() is None:
        launcher = process_table.children(run.top.pid)
    time.sleep(after)
    os.kill(launcher[0].pid, signal.SIGKILL)
    run.ends()


def test_a_rank_whose_launcher_ended_before_it_looked_does_nothing(chain, monkeypatch, capfd) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(process_table, "ancestors", lambda _: [process_table.Process(1, 0, 0, "S")])
    monkeypatch.setattr(process_table, "program", lambda _: "init")
    child = os.fork()
    if child == 0:
        supervisor.supervise("csm train")
        os._exit(77)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 1
    assert capfd.readouterr().err == (
        "csm train: the launcher of rank 0 ended before the rank began; nothing is done\n"
    )


@pytest.mark.parametrize("importing", [0.0, 60.0], ids=["trains", "imports"])
def test_ctrl_c_prints_no_traceback_and_leaves_no_process(chain, importing: float) -> None:
    run = chain("deepspeed", "torchrun", importing=importing)
    run.wait_for(*("trains_0", "trains_1") if not importing else ("rank_0", "rank_1"))
    os.killpg(run.top.pid, signal.SIGINT)
    assert run.ends() != 0 and run.saved() == (not importing)
    assert "Traceback" not in run.text()
    assert run.text() == ("rank: interrupted\n" if importing else "")


def test_ctrl_c_twice_ends_a_rank_that_does_not_stop(chain, tmp_path: Path) -> None:
    run = chain("torchrun", HANDLES="0").trains()
    for guard in process_table.children(run.top.pid):  # both ranks hang
        os.kill(process_table.children(guard.pid)[0].pid, signal.SIGSTOP)
    os.killpg(run.top.pid, signal.SIGINT)
    time.sleep(0.3)
    for pid in run.alive():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGINT)
    run.ends(3.0)
    assert run.text().count("rank: interrupted") == 1


def test_a_srun_that_starts_ranks_by_itself_is_watched_as_a_launcher_is(chain) -> None:
    run = chain("srun").trains()
    os.kill(run.top.pid, signal.SIGKILL)
    assert run.ends() == -signal.SIGKILL and run.saved()


def test_a_hung_rank_is_killed_in_time_when_its_launcher_has_ended(chain) -> None:
    run = chain("deepspeed", "torchrun", ORPHAN_S="1").trains()
    os.kill(run.pid("rank"), signal.SIGSTOP)
    os.kill(run.top.pid, signal.SIGTERM)
    run.ends(10.0)
    assert "rank: rank 1 has not stopped in time and is killed" in run.text()


def test_what_a_rank_leaves_behind_is_ended_with_it(tmp_path: Path) -> None:
    script = (
        "import os, subprocess, sys; from csm.system.supervisor import supervise; supervise('x');"
        "subprocess.Popen(['sleep', '1234.5']); sys.exit(3)"
    )
    environment = {**os.environ, "RANK": "0", "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", script], env=environment)
    assert ended.returncode == 3
    table = [process_table.words(int(e.name)) for e in Path("/proc").iterdir() if e.name.isdigit()]
    assert ["sleep", "1234.5"] not in table


def test_plain_python_has_no_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    before = os.getpid()
    supervisor.supervise("csm train")
    assert os.getpid() == before
