"""What `deepspeed.launcher.launch` does: starts two ranks, and ends all, in turn, when one fails."""

import os
import signal
import subprocess
import sys
import time

ranks = []


def end(*_: object) -> None:
    for rank in ranks:
        rank.terminate()
        try:
            rank.wait(30)
        except subprocess.TimeoutExpired:
            rank.kill()
    sys.exit(1)


for number in "01":
    where = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    command = [sys.executable, sys.argv[1], f"--local_rank={number}", *sys.argv[2:]]
    ranks.append(subprocess.Popen(command, env={**os.environ, **where}))
if os.environ.get("HANDLES", "1") == "1":
    signal.signal(signal.SIGINT, end)
    signal.signal(signal.SIGTERM, end)
while any(rank.poll() is None for rank in ranks):
    for rank in ranks:
        if rank.poll():
            code = rank.returncode
            try:
                end()
            finally:
                sys.exit(code)
    time.sleep(0.1)
