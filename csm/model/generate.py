"""One text spoken, or one voice transcribed, in a conversation of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor

from csm.generation.sampling import SamplingConfig
from csm.generation.session import Session
from csm.network.conversation_network import ConversationNetwork


def generate_voice(
    network: ConversationNetwork, texts: Sequence[str], sampling: SamplingConfig | None = None
) -> Int[Tensor, "B K T"]:
    """Returns codes of each text, spoken by speaker 0; shorter ones are padded with the end code.

    Raises:
        ValueError: A text is empty or too long for the context.
    """
    with _evaluating(network):
        turns = []
        for text in texts:
            frames = list(Session(network, sampling).speak(text, 0))
            empty = torch.zeros(network.config.num_codebooks, 0).long()
            turns.append(torch.stack(frames, dim=1) if frames else empty)
    longest = max(turn.shape[1] for turn in turns)
    return torch.stack(
        [F.pad(turn, (0, longest - turn.shape[1]), value=network.config.end_code) for turn in turns]
    )


def generate_text(network: ConversationNetwork, voice_codes: Int[Tensor, "B K T"]) -> list[str]:
    """Returns the text of each item's voice, by the argmax at every step.

    Raises:
        ValueError: The codes have a wrong shape or range, or a voice is too long for the context.
    """
    with _evaluating(network):
        return [Session(network).transcribe(codes) for codes in voice_codes]


@contextmanager
def _evaluating(network: ConversationNetwork) -> Iterator[None]:
    """Runs its body without dropout."""
    training = network.training
    network.eval()
    try:
        yield
    finally:
        network.train(training)
