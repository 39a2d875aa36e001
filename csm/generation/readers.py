"""How well the words of a rendition are read from its voice: by the voice's own model, or by a recogniser."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any, Literal, Protocol, get_args

import numpy as np
import torch

from csm.audio.resampling import resample
from csm.data.recogniser_models import tiny_model
from csm.generation.heard_turn import heard_turn, spelling_loss
from csm.generation.sampling import SamplingConfig
from csm.generation.voices import Voice
from csm.network.conversation_network import ConversationNetwork
from csm.sequences.turns import TurnFrames
from csm.system.extras import missing_package
from csm.tokenizer.opening import VoiceTokenizer

ReaderName = Literal["recogniser", "model"]
READERS: tuple[ReaderName, ...] = get_args(ReaderName)
RATE = 16_000
# Whisper's window is 30 s. Its encoder's work grows with it, and a window of 10 s is read as well.
SHORTEST_S, LONGEST_S = 10.0, 30.0


class Reader(Protocol):
    """Compares renditions of one text."""

    def __call__(self, turn: TurnFrames, voice: Voice) -> float:
        """Returns a loss of reading the turn's text from its codes; infinite for a turn without frames."""


class ModelReader:
    """The voice's own model: minus the log probability of the text's letters given the codes, nats.

    The turn is heard in a conversation that holds nothing else; the letters are those of `LetterHead.loss`.

    Args:
        model: Model in eval mode.

    Raises:
        ValueError: The model reads no letters.
    """

    def __init__(self, model: ConversationNetwork) -> None:
        if model.letter_head is None:
            raise ValueError(
                "the model reads no letters: expected the reader 'recogniser', or a voice whose model "
                "transcribes (model.letters_per_frame above 0), such as the packaged wideband"
            )
        self._model, self._head = model, model.letter_head

    @torch.no_grad()
    def __call__(self, turn: TurnFrames, voice: Voice) -> float:
        if not turn.codes.shape[1]:
            return float("inf")
        batch = heard_turn(self._model, turn.codes, turn.speaker)
        batch = batch.to(self._model.audio_embedding.weight.device)
        return spelling_loss(self._head, self._model.hidden_rows(batch), batch, turn.text)


class RecogniserReader:
    """Whisper tiny.en: minus the mean log probability of the text's tokens given the decoded sound, nats.

    Word errors of speech that it has chosen are to be reported by another recogniser (`csm evaluate --asr
    base`): by tiny.en they are too low.

    Args:
        tokenizer: Tokenizer in eval mode, on the CPU or not; it may be open in a stream.
        sampling: How codes are decoded.

    Raises:
        ValueError: A package or the recogniser is missing.
    """

    def __init__(self, tokenizer: VoiceTokenizer, sampling: SamplingConfig) -> None:
        self._whisper, self._marks = _tiny()
        self._tokenizer, self._sampling = tokenizer.with_own_state(), sampling

    @torch.no_grad()
    def __call__(self, turn: TurnFrames, voice: Voice) -> float:
        if not turn.codes.shape[1]:
            return float("inf")
        sound = self._tokenizer.decode(
            turn.codes[None, : self._sampling.decoded_codebooks].to(self._tokenizer.device),
            speaker=voice.speaker,
            emotion=voice.emotion,
            contrast=self._sampling.contrast,
        )
        return self._loss(resample(sound[0, 0].cpu(), self._tokenizer.config.sample_rate, RATE), turn.text)

    def _loss(self, samples: torch.Tensor, text: str) -> float:
        samples = samples[: round(LONGEST_S * RATE)]
        length = max(round(SHORTEST_S * RATE), len(samples) + len(samples) % 2)
        window = torch.nn.functional.pad(samples, (0, length - len(samples)))
        features = self._whisper.feature_extractor(window.numpy().astype(np.float32), padding=0)
        features = features[:, : features.shape[1] // 2 * 2]
        tokens = self._marks.encode(f" {text.strip()}")
        aligned = self._whisper.model.align(
            self._whisper.encode(features), self._marks.sot_sequence, [tokens], [features.shape[1] // 2]
        )
        return float(-np.log(np.maximum(aligned[0].text_token_probs, 1e-6)).mean())


@cache
def _tiny() -> tuple[Any, Any]:
    """Returns tiny.en and its tokenizer, loaded once in a process."""
    user, otherwise = "the reader of candidates", "or take the reader 'model'"
    try:
        library: Any = importlib.import_module("faster_whisper")
        marks: Any = importlib.import_module("faster_whisper.tokenizer").Tokenizer
    except ImportError as error:
        raise ValueError(f"{missing_package('faster-whisper', user)}, {otherwise}") from error
    folder = str(tiny_model(user, otherwise))
    whisper = library.WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=1)
    return whisper, marks(whisper.hf_tokenizer, False)


def reader_of(
    name: str | None, model: ConversationNetwork, tokenizer: VoiceTokenizer, sampling: SamplingConfig
) -> Reader:
    """Returns a reader by its name; None is the recogniser.

    Raises:
        ValueError: The name is unknown, a package is missing, or the model reads no letters.
    """
    name = name or READERS[0]
    if name not in READERS:
        raise ValueError(f"reader is {name!r}: expected one of {', '.join(READERS)}")
    return ModelReader(model) if name == "model" else RecogniserReader(tokenizer, sampling)
