"""The encoder of a tokenizer with a vocoder: the vocoder's features of each codec frame, weighted."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.spectrum import SpectralFrames
from csm.tokenizer.vocoder_features import STEPS_PER_FRAME, WIDTH, VocoderFeatures


class FeatureEncoder(nn.Module):
    """A fixed analysis: nothing of it is trained.

    Attributes:
        centre, scale: Mean and weight of each feature, [22]: the distance that codebooks are searched by is
            that of weighted features.

    Args:
        config: Sizes of the tokenizer.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        # For the utterance encoders.
        self.spectrum = SpectralFrames(config.hop, config.window_hops)
        self.vocoder_features = VocoderFeatures()
        self.register_buffer("centre", torch.zeros(WIDTH))
        self.register_buffer("scale", torch.ones(WIDTH))

    def forward(
        self, waveform: Float[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T2 C"]]:
        """Encodes waveforms [B, S], full scale = 1, S a multiple of the samples per frame.

        Returns:
            (weighted features [B, T, 176] of each codec frame, STFT features [B, T2, C]).
        """
        latent = (self.vocoder_features(waveform) - self.centre) * self.scale
        return latent.unflatten(1, (-1, STEPS_PER_FRAME)).flatten(2), self.spectrum(waveform)
