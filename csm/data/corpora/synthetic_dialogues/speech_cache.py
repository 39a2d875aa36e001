"""Spoken utterances on disk, by the content they were made from: generation resumes where it was stopped."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from csm.data.corpora.synthetic_dialogues.kokoro import ARITHMETIC, MODEL_SHA256, SAMPLE_RATE, Kokoro
from csm.data.corpora.synthetic_dialogues.script import Utterance
from csm.system.files import new_file

#: Silence kept before and after the speech, seconds.
LEAD, TAIL = 0.08, 0.16
#: Amplitude, full scale = 1, below which the edges count as silence.
SILENCE = 0.01


@dataclass(frozen=True)
class SpeechCache:
    """Folder of FLAC files named by the hash of phonemes, voice, rate, model and arithmetic.

    Attributes:
        folder: Where the files lie.
    """

    folder: Path

    def path(self, utterance: Utterance, phonemes: str) -> Path:
        """Returns where the speech of an utterance lies or will lie."""
        parts = [MODEL_SHA256, ARITHMETIC, phonemes, utterance.speaker.parts, utterance.speed]
        digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        return self.folder / digest[:2] / f"{digest}.flac"

    def speak(self, teacher: Kokoro, utterance: Utterance, phonemes: str) -> Path:
        """Returns the file of an utterance, spoken now where it is not there yet."""
        path = self.path(utterance, phonemes)
        if not path.is_file():
            samples = trimmed(teacher.speak(phonemes, utterance.speaker, utterance.speed))
            path.parent.mkdir(parents=True, exist_ok=True)
            with new_file(path) as temporary:
                samples = np.clip(samples, -1, 1)
                soundfile.write(temporary, samples, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
        return path


def trimmed(samples: np.ndarray) -> np.ndarray:
    """Returns the samples with 80 ms before and 160 ms after what is louder than 0.01 of full scale."""
    loud = np.flatnonzero(np.abs(samples) > SILENCE)
    if not len(loud):
        return samples
    first = max(0, loud[0] - round(LEAD * SAMPLE_RATE))
    return samples[first : loud[-1] + 1 + round(TAIL * SAMPLE_RATE)]
