"""README's second Python block runs as it is written, and its commands have the options that it names.

The first block is the mission's snippet: test_mission_snippet.py runs it.
"""

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from csm import Talker
from csm.audio.files import read_audio
from csm.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
COMMAND_LINES = re.findall(r"^csm (.+)$", README, re.M)


def test_the_blocks_are_the_models_and_the_talkers() -> None:
    assert len(BLOCKS) == 2
    assert "conversational_loss(outputs, targets)" in BLOCKS[0] and "Talker.from_pretrained()" in BLOCKS[1]


def test_the_talkers_block_speaks_streams_and_answers(tmp_path: Path) -> None:
    played: list[torch.Tensor] = []
    names = {
        "recording": recording(tmp_path),
        "play": played.append,
        "sentences_as_they_arrive": arriving(),
    }
    exec(compile(BLOCKS[1], "README.md", "exec"), names)
    speech = names["speech"]
    assert speech.waveform.shape[1] > speech.sample_rate / 2
    assert speech.timing.audio_s == pytest.approx(speech.waveform.shape[1] / speech.sample_rate, abs=1e-3)
    assert sum(chunk.shape[1] for chunk in played) > speech.sample_rate / 2
    assert all(chunk.shape[0] == 1 and chunk.dtype == torch.float32 for chunk in played)


def arriving() -> Iterator[str]:
    """Yields two sentences, as another program would."""
    yield "Come in. "
    yield "Sit down."


def recording(folder: Path) -> torch.Tensor:
    """Returns a recorded turn, float32 [1, S] at 11,025 Hz: here one of the packaged voice."""
    talker = Talker.from_pretrained()
    talker.generate("You took it.", "FAYE", stream=True, seed=1).write(folder / "turn.wav")
    return read_audio(folder / "turn.wav", sample_rate=11_025)


def test_every_command_stands_in_the_readme() -> None:
    assert {name for name in COMMANDS if any(line.startswith(f"{name} ") for line in COMMAND_LINES)} == {
        *COMMANDS
    }


@pytest.mark.parametrize("line", [line for line in COMMAND_LINES if "--help" not in line])
def test_a_command_of_the_readme_parses(line: str) -> None:
    name = next(name for name in COMMANDS if line.startswith(f"{name} "))
    subcommand = importlib.import_module(f"csm.cli.{COMMANDS[name][0]}")
    parser = argparse.ArgumentParser(exit_on_error=False)
    subcommand.add_arguments(parser)
    assert parser.parse_args(shlex.split(line, comments=True)[len(name.split()) :])
