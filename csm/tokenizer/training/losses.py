"""Weights of the tokenizer's losses, and the losses of its heads."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

# CTC needs at least one output per letter: four per frame are 50 a second, above any speaker's rate.
CTC_OUTPUTS_PER_FRAME = 4


@dataclass(frozen=True, kw_only=True)
class TokenizerLossConfig:
    """Weights of the losses, shares of the dropouts, and the update of the codebooks.

    Attributes:
        mel: Weight of the L1 distance of log-mel spectrograms: over several window lengths (DAC's main loss),
            or, where phases are recovered, of the decoder's own STFT frames.
        magnitude: Weight of the L1 distance of compressed magnitudes over the same windows, or, where phases
            are recovered, of the share of the compressed magnitudes' variance that is not explained.
        vocoder: Weight of the L1 distance of the vocoder's weighted features, for a tokenizer with a vocoder.
        envelope: Weight of the spectral envelope beside its fine structure in `magnitude`, and in the
            principal components that a tokenizer starts from, where phases are recovered; 1: errors of all
            bins count alike.
        commitment: Weight of the distance of the projections from their code vectors.
        isotropy: Weight of the penalty on projections that vary in a few directions only.
        prediction: Weight of the share of the latents' variance that the semantic codes do not predict, where
            a semantic encoder makes these.
        text: Weight of the CTC loss on the semantic codebooks' sum.
        speaker: Weight of the classification of training speakers by the speaker embedding.
        reversal: Weight of the reversed gradient of a speaker classifier on the semantic codebooks' mean
            (Ganin & Lempitsky 2015).
        emotion: Weight of the regression of the utterance's prosody statistics from the emotion embedding.
        distillation: Weight of the regression of a teacher's features from the semantic codebooks' sum; it
            counts with a teacher only.
        adversarial: Norm of the adversarial gradient before the decoder's head, or at the features of a
            vocoder, relative to that of the other losses there, from step `adversarial_start` on; 0: no
            discriminators.
        feature_matching: Weight of feature matching relative to the adversarial hinge loss.
        adversarial_start: Number of the first step with discriminators.
        discriminator_share: Share of a micro-batch's items that the discriminators are trained on, above 0 to
            1: they cost more than the tokenizer.
        discriminator_rate: Learning rate of the discriminators, as a factor on the tokenizer's.
        condition_dropout: Share of items decoded without speaker and emotion embedding, so that codes alone
            suffice.
        quantizer_dropout: Share of items quantized with a random prefix of the codebooks.
        semantic_only: Share of items decoded from the semantic codebooks alone; a voice may then predict only
            these.
        predicted_share: Share of items decoded from a voice's predictions of their codes, where a voice is
            given (`predicting_voice`); the decoder is then trained on predictions as well.
        bypass: Share of items decoded from the unquantized latent.
        decay: Decay rate of the moving averages of the codebooks' vectors.
        revive_below: Usage below which a code is replaced, as a share of uniform usage.

    Raises:
        ValueError: A share is out of range.
    """

    mel: float = 1.0
    magnitude: float = 0.3
    vocoder: float = 1.0
    envelope: float = 1.0
    commitment: float = 0.25
    isotropy: float = 0.02
    prediction: float = 0.2
    text: float = 0.2
    speaker: float = 0.2
    reversal: float = 0.05
    emotion: float = 0.2
    distillation: float = 1.0
    adversarial: float = 0.0
    feature_matching: float = 4.0
    adversarial_start: int = 0
    discriminator_share: float = 1.0
    discriminator_rate: float = 0.5
    condition_dropout: float = 0.3
    quantizer_dropout: float = 0.5
    semantic_only: float = 0.0
    predicted_share: float = 0.0
    bypass: float = 0.4
    decay: float = 0.98
    revive_below: float = 0.02

    def __post_init__(self) -> None:
        for name in ("condition_dropout", "quantizer_dropout", "semantic_only", "predicted_share", "bypass"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected a share from 0 to 1")
        if self.quantizer_dropout + self.semantic_only > 1:
            raise ValueError(
                f"quantizer_dropout is {self.quantizer_dropout}, semantic_only {self.semantic_only}: "
                f"expected shares of different items, at most 1 together"
            )
        if not self.envelope >= 1:
            raise ValueError(f"envelope is {self.envelope}: expected 1 or above")
        if not 0 < self.discriminator_share <= 1:
            raise ValueError(
                f"discriminator_share is {self.discriminator_share}: expected a share above 0, at most 1"
            )


def distillation_loss(
    output: Float[Tensor, "B T C"], target: Float[Tensor, "B T C"], mask: Bool[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """Returns 1 - cosine of student and teacher features, mean over frames (Mimi, Defossez et al. 2024).

    Args:
        output: Features of the student, [B, T, C].
        target: Features of the teacher, [B, T, C].
        mask: Frames that count, bool [B, T].

    Returns:
        Scalar, 0 to 2; 0 where no frame counts.
    """
    distance = 1 - F.cosine_similarity(output.float(), target.float(), dim=-1)
    return (distance * mask).sum() / mask.sum().clamp_min(1)
