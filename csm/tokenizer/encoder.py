"""Waveform to one latent vector per frame, causally."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from csm.tokenizer.layers import ConvNeXtBlock, Downsample
from csm.tokenizer.spectrum import SpectralFrames
from csm.tokenizer.transformer import TransformerLayer


class Encoder(nn.Module):
    """STFT frames through ConvNeXt stages of falling rate and rising width, then a transformer.

    Early stages run at the STFT rate and are narrow, late ones at the frame rate and wide: most parameters
    sit where a second of audio costs the fewest operations.

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
        blocks: list[nn.Module] = []
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            if stage:
                blocks.append(Downsample(widths[stage - 1], width, strides[stage - 1]))
            blocks.extend(ConvNeXtBlock(width, expansion=expansion) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks, *transformer)
        self.norm = nn.LayerNorm(widths[-1])

    def forward(
        self, waveform: Float[Tensor, "B S"]
    ) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B T2 C"]]:
        """Encodes waveforms [B, S], full scale = 1, S a multiple of the samples per frame.

        Returns:
            (latents [B, T, D] at the frame rate, STFT features [B, T2, C] they were made of).
        """
        features = self.spectrum(waveform)
        return self.norm(self.blocks(self.embed(features))), features
