"""A rank that needs no torch: `rank.py FOLDER IMPORT_SECONDS`. It writes saved_N when it is asked to stop."""

import os
import signal
import sys
import time
from pathlib import Path

from csm.system import supervisor

supervisor.ORPHAN_S = float(os.environ.get("ORPHAN_S", supervisor.ORPHAN_S))
supervisor.supervise("rank")
folder, importing, number = Path(sys.argv[-2]), float(sys.argv[-1]), os.environ["RANK"]
(folder / f"{number}.partial").write_text(str(os.getpid()))
(folder / f"{number}.partial").rename(folder / f"rank_{number}")  # a file that exists holds its number
time.sleep(importing)
asked: list[int] = []
signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
(folder / f"trains_{number}").touch()
# The lowest rank stops the others by the folder, as ranks do by an all-reduce.
while not asked and not list(folder.glob("asked_*")):
    time.sleep(0.02)
(folder / f"asked_{number}").touch()
time.sleep(0.2)
(folder / f"saved_{number}").touch()
