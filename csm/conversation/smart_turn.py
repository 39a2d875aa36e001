"""smart-turn: the probability that a pause is the end of a turn, from the last 8 s of its audio.

The network is Whisper tiny's encoder with a head, trained by Daily on short turns of many languages
(github.com/pipecat-ai/smart-turn, v3.2). It reads sound alone, no transcript.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from csm.conversation.turn_end import Patience, SilenceAlone, TurnEnd
from csm.conversation.worker import Task
from csm.data.turn_end_model import smart_turn_model
from csm.system.extras import missing_package
from csm.system.log import log
from csm.tokenizer.semantic.log_mel import mel_filters

RATE, LENGTH = 16_000, 128_000  # samples: 8 s
WINDOW, HOP = 400, 160
TURN_ENDS = ("silence", "smart-turn")


@dataclass(frozen=True, kw_only=True)
class SmartTurnConfig:
    """How a probability becomes a silence; times in seconds.

    Attributes:
        threshold: Probability from which on a pause is the turn's end.
        shift: Silence that ends a turn whose pause is one.
        hold: Silence that ends any other turn, and one of which nothing is known yet.
    """

    threshold: float = 0.5
    shift: float = 0.3
    hold: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold is {self.threshold}: expected above 0 and below 1")
        if not 0 < self.shift <= self.hold:
            raise ValueError(f"shift is {self.shift}: expected above 0 s, at most hold, {self.hold}")


class SmartTurn:
    """Classifies pauses by smart-turn on one thread; may be shared by conversations.

    Args:
        config: Threshold and silences.
        model: ONNX file; None is that of the wheel, fetched once.

    Raises:
        ValueError: A package or the model is missing.
    """

    name = "smart-turn v3.2"

    def __init__(self, config: SmartTurnConfig | None = None, model: Path | None = None) -> None:
        try:
            library: Any = importlib.import_module("onnxruntime")
        except ImportError as error:
            raise ValueError(missing_package("onnxruntime", "smart-turn")) from error
        options = library.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = str(model or smart_turn_model())
        self._session = library.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.config = config or SmartTurnConfig()
        self.silence = self.config.hold

    def classify(self, turn: Float[Tensor, " S"]) -> Task:
        """Yields the silence that this pause needs."""
        probability = self.probability(turn)
        shift = probability >= self.config.threshold
        silence = self.config.shift if shift else self.config.hold
        yield Patience(silence, f"{'shift' if shift else 'hold'} {probability:.2f}")

    def probability(self, turn: Float[Tensor, " S"]) -> float:
        """Returns the probability, 0 to 1, that a turn [S] at 16 kHz, pause included, has ended."""
        features = whisper_features(turn)[None].numpy()
        return float(self._session.run(None, {"input_features": features})[0][0, 0])


def whisper_features(turn: Float[Tensor, " S"]) -> Float[Tensor, "80 800"]:
    """Returns Whisper's log-mel features of the last 8 s, with zeros before a shorter turn.

    The samples have mean 0 and variance 1 over the 8 s, as in transformers' WhisperFeatureExtractor with
    `do_normalize`.
    """
    samples = turn[-LENGTH:].float()
    samples = torch.nn.functional.pad(samples, (LENGTH - len(samples), 0))
    samples = (samples - samples.mean()) / (samples.var(correction=0) + 1e-7).sqrt()
    # In float32 the quietest bins would be off by more than 1e-4.
    spectrum = torch.stft(
        samples.double(),
        WINDOW,
        HOP,
        window=torch.hann_window(WINDOW, dtype=torch.float64),
        return_complex=True,
    )[:, :-1]
    power = torch.view_as_real(spectrum).square().sum(-1)
    bands = (mel_filters(WINDOW // 2 + 1, RATE).double().T @ power).clamp_min(1e-10).log10()
    return ((bands.maximum(bands.max() - 8) + 4) / 4).float()


def turn_end_of(name: str) -> TurnEnd:
    """Returns what decides ends of turns, one of TURN_ENDS.

    Raises:
        ValueError: smart-turn is named, and a package or its weights are missing.
    """
    return SmartTurn() if name == "smart-turn" else SilenceAlone()


def available_turn_end(name: str) -> TurnEnd:
    """Returns what decides ends of turns; where it cannot be had, silence alone, and one line says so."""
    try:
        return turn_end_of(name)
    except ValueError as error:
        log.warning("ends of turns are decided by silence alone: %s", error)
        return SilenceAlone()
