"""The ranks of a run: how a process leaves them."""

from pathlib import Path

import pytest

from csm.training.distributed import gloo_is_busy


@pytest.mark.parametrize(
    ("name", "state", "busy"),
    [
        ("pt_gloo_runloop", "R", True),
        ("gloo_tcp_loop", "R", True),
        ("pt_gloo_runloop", "S", False),
        ("python (3)", "R", False),
        ("a) gloo (R", "S", False),
    ],
)
def test_a_process_waits_for_gloos_running_threads_and_for_no_other(
    tmp_path: Path, name: str, state: str, busy: bool
) -> None:
    for task, line in (("7", "7 (python) S 1 7 7"), ("8", f"8 ({name}) {state} 1 8 8")):
        (tmp_path / task).mkdir()
        (tmp_path / task / "stat").write_text(line)
    (tmp_path / "9").mkdir()  # a thread that ended while the folder was read
    assert gloo_is_busy(tmp_path) is busy
