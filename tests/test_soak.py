"""A short soak with DeepSpeed's own launcher: `python tests/soak.py --minutes 120` is the long one."""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
import time
from pathlib import Path

import pytest

_spec = importlib.util.spec_from_file_location("csm_soak", Path(__file__).with_name("soak.py"))
assert _spec is not None and _spec.loader is not None
soak = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(soak)

FIELDS = ["training.steps=100000", "training.checkpoint_every=2", "training.samples=false"]


@pytest.mark.processes
@pytest.mark.skipif(sys.platform != "linux", reason="supervisors are for Linux")
def test_a_killed_deepspeed_launcher_is_a_failure_and_leaves_no_process(tmp_path: Path) -> None:
    pytest.importorskip("deepspeed")
    if not Path(sys.executable).with_name("deepspeed").exists():
        pytest.skip("the launcher of deepspeed is not installed beside this python")
    soak.make_corpus(tmp_path / "corpus")
    output, fields = tmp_path / "run", [*FIELDS, "training.tracker=none", "training.validate_every=100000"]
    session = soak.Session("deepspeed", tmp_path / "corpus", output, fields)
    deadline = time.monotonic() + 100
    while not list(output.glob("checkpoints/step_????????")):
        assert session.top.poll() is None and time.monotonic() < deadline, soak.log_of(output)
        time.sleep(0.05)
    os.kill(session.roles()["launcher"][0], signal.SIGKILL)
    assert session.ended(10.0) != 0  # DeepSpeed's runner by itself would report success
    soak.verify(output / "checkpoints")
    assert "stopped after step" in soak.log_of(output) and "Traceback" not in soak.log_of(output)
