"""Losses of the heads that read text from quantized semantic rows, and their weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class SemanticLossConfig:
    """Weights of the losses of a semantic tokenizer, and the update of its codebooks.

    Attributes:
        phones: Weight of the cross entropy of the phone at every 20 ms, labels by forced alignment.
        letters: Weight of the CTC loss over letters.
        recogniser: Weight of the cross entropy of the text by a frozen recogniser's decoder, which reads the
            semantic rows in place of its own encoder's features.
        features: Weight of the share of variance that the rows do not explain of the features that the
            recogniser's own encoder, with all of the past and the future, gives the decoder.
        commitment: Weight of the distance of the rows from their code vectors.
        quantizer_dropout: Share of items quantized with a random prefix of the codebooks, from the first on.
        decay: Decay rate of the moving averages of the codebooks' vectors.
        revive_below: Usage below which a code is replaced, as a share of uniform usage.

    Raises:
        ValueError: A share is out of range.
    """

    phones: float = 1.0
    letters: float = 0.5
    recogniser: float = 0.5
    features: float = 1.0
    commitment: float = 0.25
    quantizer_dropout: float = 0.5
    decay: float = 0.99
    revive_below: float = 0.3

    def __post_init__(self) -> None:
        if not 0 <= self.quantizer_dropout <= 1:
            raise ValueError(f"quantizer_dropout is {self.quantizer_dropout}: expected a share from 0 to 1")


def phone_loss(scores: Float[Tensor, "B N P"], phones: Tensor) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Returns the cross entropy of phones [B, N] (-100 where there is none) and the share found by argmax."""
    loss = F.cross_entropy(scores.float().flatten(0, 1), phones.flatten(), label_smoothing=0.05)
    counted = phones >= 0
    right = (scores.argmax(-1) == phones) & counted
    return loss, right.sum() / counted.sum().clamp_min(1)


def letter_loss(
    scores: Float[Tensor, "B N L"], steps: Tensor, text: Tensor, text_lengths: Tensor
) -> Float[Tensor, ""]:
    """Returns the CTC loss per letter; items without text count as nothing.

    Args:
        scores: Log probabilities [B, N, L].
        steps: Steps of each item, int64 [B].
        text: Letters int64 [B, M].
        text_lengths: Letters of each item, int64 [B]; 0 where there is no text.
    """
    losses = F.ctc_loss(
        scores.transpose(0, 1), text, steps, text_lengths, reduction="none", zero_infinity=True
    )
    with_text = text_lengths > 0
    share = torch.where(with_text, losses / text_lengths.clamp_min(1), torch.zeros_like(losses))
    return share.sum() / with_text.sum().clamp_min(1)


def feature_loss(found: Float[Tensor, "N D"], wanted: Float[Tensor, "N D"]) -> Float[Tensor, ""]:
    """Returns the share of the variance of `wanted` that `found` leaves."""
    wanted = wanted.float()
    return (found.float() - wanted).square().sum() / (wanted - wanted.mean(0)).square().sum()
