"""A WAV file is played by the first player that succeeds; without one the reason is returned."""

import sys
from pathlib import Path

import pytest

from csm.generation.playback import PLAYERS, play


@pytest.fixture
def players(tmp_path, monkeypatch):
    """Makes programs with the names of players that record their argument and end with a status."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()

    def make(name: str, status: int) -> Path:
        program = tmp_path / "bin" / name
        played = tmp_path / f"{name}.txt"
        program.write_text(
            f"#!{sys.executable}\nimport pathlib, sys\n"
            f"pathlib.Path({str(played)!r}).write_text(sys.argv[1])\nsys.exit({status})\n"
        )
        program.chmod(0o755)
        return played

    return make


def test_without_a_player_the_reason_names_those_that_were_tried(players):
    assert play(Path("line.wav"), 1.0) == f"no player installed ({', '.join(PLAYERS)})"


def test_the_first_player_that_succeeds_plays_the_file(players):
    failed, played, unused = players("pw-play", 1), players("aplay", 0), players("play", 0)
    assert play(Path("line.wav"), 1.0) is None
    assert failed.read_text() == played.read_text() == "line.wav" and not unused.exists()


def test_players_that_all_fail_mean_no_sound_device(players):
    players("aplay", 1)
    assert play(Path("line.wav"), 1.0) == "no sound device"
