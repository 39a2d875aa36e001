"""A system's side of Full-Duplex-Bench's samples: spoken by a subject, or as another system left it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from csm.audio.files import read_audio, write_audio
from csm.evaluation.conversation.bench import STEP_S, Subject
from csm.evaluation.conversation.full_duplex import Sample, SystemSide, read_words
from csm.evaluation.conversation.users import RATE
from csm.evaluation.metrics.turn_taking import VoiceActivity

OUTPUT, WORDS = "output.wav", "output.json"


@torch.no_grad()
def answer(sample: Sample, subject: Subject, path: Path) -> None:
    """Plays a sample's input to a subject and writes what it says meanwhile."""
    user = read_audio(sample.folder / "input.wav", sample_rate=RATE)[0]
    said = [subject.step(part, RATE) for part in user.split(round(STEP_S * RATE))]
    write_audio(path, torch.cat(said)[None], subject.rate)


class Answers:
    """Gives the system's side of a sample, and has it spoken where there is none yet.

    Args:
        folder: Where the outputs lie, a folder for each sample.
        make: Makes a new subject for a sample; None reads what is there.
    """

    def __init__(self, folder: Path, make: Callable[[], Subject] | None) -> None:
        self._folder, self._make = folder, make
        self._activity = VoiceActivity()

    def __call__(self, sample: Sample) -> SystemSide:
        """Returns what was said.

        Raises:
            ValueError: There is no output, or it cannot be read.
        """
        path = self._folder / sample.name / OUTPUT
        if not path.is_file():
            if self._make is None:
                raise ValueError(f"no file {path}: expected the system's side of {sample.name}")
            self._spoken(sample, path, self._make())
        audio = read_audio(path, sample_rate=RATE)[0]
        words = path.with_name(WORDS)
        return SystemSide(
            self._activity.intervals(audio.numpy(), RATE),
            len(audio) / RATE,
            read_words(words) if words.is_file() else None,
        )

    def _spoken(self, sample: Sample, path: Path, subject: Subject) -> None:
        try:
            answer(sample, subject, path)
        finally:
            subject.close()
