"""One text spoken, or one voice written down, in a conversation of its own: CSMModel's forward uses it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from csm.generation.sampling import SamplingConfig
from csm.generation.session import Session
from csm.network.csm_model import CSMModel


def voice(
    model: CSMModel, texts: Sequence[str], sampling: SamplingConfig | None = None
) -> Int[Tensor, "B K T"]:
    """Generated codes of each text, spoken by speaker 0; shorter ones are padded with the end code.

    Raises:
        ValueError: An empty text, or one too long for the context.
    """
    with _evaluating(model):
        turns = []
        for text in texts:
            said = list(Session(model, sampling).speak(text, 0))
            turns.append(
                torch.stack(said, dim=1) if said else torch.zeros(model.config.num_codebooks, 0).long()
            )
    longest = max(turn.shape[1] for turn in turns)
    return torch.stack(
        [F.pad(turn, (0, longest - turn.shape[1]), value=model.config.end_code) for turn in turns]
    )


def transcribe(model: CSMModel, voice_codes: Int[Tensor, "B K T"]) -> list[str]:
    """The text of each item's voice, the likeliest id at every step.

    Raises:
        ValueError: Codes of a wrong shape or range, or a voice too long for the context.
    """
    with _evaluating(model):
        return [Session(model).write(codes) for codes in voice_codes]


@contextmanager
def _evaluating(model: CSMModel) -> Iterator[None]:
    """Inside, no dropout."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
