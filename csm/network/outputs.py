"""What a model gives: teacher-forced logits or cross-entropies of a batch, or what it generated."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float, Int
from torch import Tensor


@dataclass(kw_only=True)
class TeacherForced:
    """Regressions of a batch of rows; logits and cross-entropies come with them.

    Attributes:
        prosody: [A, 3], log-F0, voicing logit and log energy of the frame that follows, for every row that is
            followed by a voice frame or an end row.
        duration: [U], log frames of each spoken turn.
        pace: [P], log frames of every text id that is aligned.
        latent: [T, latent_dim], latent of every frame that follows; None in a model without latent_dim.
        refined: [T, latent_dim], the same given the frame's code 0.
        letters: [N, letters per frame, letters], log probabilities of each transcribed row's letters; None
            in a model without a letter head.
    """

    prosody: Float[Tensor, "A 3"]
    duration: Float[Tensor, " U"]
    pace: Float[Tensor, " P"]
    latent: Float[Tensor, "T L"] | None = None
    refined: Float[Tensor, "T L"] | None = None
    letters: Float[Tensor, "N F A"] | None = None


@dataclass(kw_only=True)
class CSMLogits(TeacherForced):
    """Logits of every target of a batch.

    Attributes:
        codebook0: [A, V], for every row that is followed by a voice frame or an end row.
        depth: [F, K - 1, V], for the frames that the depth decoder ran on.
        text: [L, W], for every row that is followed by transcribed text.
    """

    codebook0: Float[Tensor, "A V"]
    depth: Float[Tensor, "F K1 V"]
    text: Float[Tensor, "L W"]


@dataclass(kw_only=True)
class CSMCrossEntropies(TeacherForced):
    """Cross-entropies of the targets of a batch in nats, summed over the rows of CSMLogits.

    Attributes:
        codebook0: Scalar.
        depth: [K - 1], one sum per codebook.
        text: Scalar.
    """

    codebook0: Float[Tensor, ""]
    depth: Float[Tensor, " K1"]
    text: Float[Tensor, ""]


@dataclass(kw_only=True)
class GeneratedVoice:
    """Voice generated from texts.

    Attributes:
        voice_codes: int64 [B, K, T], shorter items are padded with the end code.
    """

    voice_codes: Int[Tensor, "B K T"]


@dataclass(kw_only=True)
class GeneratedText:
    """Text generated from voice.

    Attributes:
        text_tokens: One text for each item.
    """

    text_tokens: list[str]


CSMOutput = CSMLogits | CSMCrossEntropies | GeneratedVoice | GeneratedText
