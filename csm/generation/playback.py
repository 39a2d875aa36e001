"""Plays audio files on the loudspeaker."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

# Tried in this order: PipeWire, PulseAudio, ALSA, macOS, and SoX.
PLAYERS = ("pw-play", "paplay", "aplay", "afplay", "play")


def play(path: Path, seconds: float) -> str | None:
    """Plays a WAV file and waits until it ends.

    Args:
        path: WAV file.
        seconds: Length of the file; a player that takes 10 s longer is stopped.

    Returns:
        None if a player succeeded, else the reason in a few words.
    """
    found = [command for command in map(shutil.which, PLAYERS) if command]
    if not found:
        return f"no player installed ({', '.join(PLAYERS)})"
    for command in found:
        try:
            done = subprocess.run(
                [command, str(path)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=seconds + 10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return None
    return "no sound device"
