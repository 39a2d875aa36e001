"""Waveform to one latent vector per frame, causally."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from csm.tokenizer.layers import ConvNeXtBlock, Downsample
from csm.tokenizer.spectrum import SpectralFrames
from csm.tokenizer.transformer import TransformerLayer


class Encoder(nn.Module):
    """STFT frames through ConvNeXt stages of falling rate and rising width, then a transformer.

    Early stages run at the STFT rate and are narrow, late ones at the frame rate and wide: most parameters
    sit where a second of audio costs the fewest operations. Beside the early stages one linear map takes all
    compressed magnitudes of a codec frame to the frame rate (`csm.tokenizer.principal_components`).

    Args:
        hop: Samples between STFT frames.
        window_hops: STFT window length in hops.
        widths: Width of each stage, one more than `strides`.
        depths: Blocks of each stage.
        strides: Reduction of the rate between stages.
        expansion: Width of the blocks' perceptrons in widths.
        transformer: Layers at the frame rate.
    """

    def __init__(
        self,
        hop: int,
        window_hops: int,
        widths: Sequence[int],
        depths: Sequence[int],
        strides: Sequence[int],
        *,
        expansion: int,
        transformer: Sequence[TransformerLayer],
    ) -> None:
        super().__init__()
        self.spectrum = SpectralFrames(hop, window_hops)
        self.embed = nn.Linear(self.spectrum.feature_width, widths[0])
        self.hops_per_frame = torch.Size(strides).numel()
        bins = self.spectrum.feature_width // 3
        self.shortcut = nn.Linear(self.hops_per_frame * bins, widths[-1])
        stages: list[nn.Module] = []
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            if stage:
                stages.append(Downsample(widths[stage - 1], width, strides[stage - 1]))
            if stage == len(strides):
                break
            stages.extend(ConvNeXtBlock(width, expansion=expansion) for _ in range(depth))
        self.stages = nn.Sequential(*stages)
        blocks = (ConvNeXtBlock(widths[-1], expansion=expansion) for _ in range(depths[-1]))
        self.blocks = nn.Sequential(*blocks, *transformer)

    def forward(
        self, waveform: Float[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T2 C"]]:
        """Encodes waveforms [B, S], full scale = 1, S a multiple of the samples per frame.

        Returns:
            (latents [B, T, D] at the frame rate, STFT features [B, T2, C] they were made of).
        """
        features = self.spectrum(waveform)
        compressed = self.spectrum.compressed(features).unflatten(1, (-1, self.hops_per_frame)).flatten(2)
        return self.blocks(self.stages(self.embed(features)) + self.shortcut(compressed)), features
