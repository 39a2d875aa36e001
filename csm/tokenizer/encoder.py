"""Waveform to one latent vector per frame, causally."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.layers import ConvNeXtBlock, Downsample
from csm.tokenizer.spectrum import SpectralFrames
from csm.tokenizer.transformer import transformer_layers


class Encoder(nn.Module):
    """STFT frames through ConvNeXt stages of falling rate and rising width, then a transformer.

    Early stages run at the STFT rate and are narrow, late ones run at the frame rate and are wide: most
    parameters are used where a second of audio costs the fewest operations. Beside the early stages one
    linear map takes all compressed magnitudes of a codec frame to the frame rate; it can start at principal
    components (`csm.tokenizer.training.principal_components`).

    Args:
        config: Sizes of the tokenizer.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        widths, depths = config.encoder_widths, config.encoder_depths
        # Created first, so that initial weights of one seed stay the same.
        transformer = transformer_layers(config, widths[-1], config.encoder_layers)
        self.spectrum = SpectralFrames(config.hop, config.window_hops)
        self.embed = nn.Linear(self.spectrum.feature_width, widths[0])
        self.hops_per_frame = config.hops_per_frame
        self.shortcut = nn.Linear(config.hops_per_frame * config.bins, widths[-1])
        stages: list[nn.Module] = []
        for stage, stride in enumerate(config.strides):
            stages += (ConvNeXtBlock(widths[stage], expansion=config.expansion) for _ in range(depths[stage]))
            stages.append(Downsample(widths[stage], widths[stage + 1], stride))
        self.stages = nn.Sequential(*stages)
        blocks = (ConvNeXtBlock(widths[-1], expansion=config.expansion) for _ in range(depths[-1]))
        self.blocks = nn.Sequential(*blocks, *transformer)

    def forward(
        self, waveform: Float[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T2 C"]]:
        """Encodes waveforms [B, S], full scale = 1, S a multiple of the samples per frame.

        Returns:
            (latents [B, T, D] at the frame rate, STFT features [B, T2, C] that they were computed from).
        """
        features = self.spectrum(waveform)
        compressed = self.spectrum.compressed(features).unflatten(1, (-1, self.hops_per_frame)).flatten(2)
        return self.blocks(self.stages(self.embed(features)) + self.shortcut(compressed)), features
