"""One latent vector per frame to a waveform, causally."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from csm.tokenizer.layers import ConvNeXtBlock, Upsample
from csm.tokenizer.magnitude_head import MagnitudeHead
from csm.tokenizer.phase_recovery import PhaseRecovery
from csm.tokenizer.spectrum import OverlapAdd
from csm.tokenizer.transformer import TransformerLayer


class Decoder(nn.Module):
    """The encoder mirrored: ConvNeXt stages of rising rate and falling width, then an inverse STFT.

    Args:
        input_width: Width of a latent.
        condition_width: Width of the utterance condition (speaker and emotion), added before the first stage.
        hop: Samples between STFT frames.
        window_hops: STFT window length in hops.
        widths: Width of each stage, one more than `strides`.
        depths: Blocks of each stage.
        strides: Rise of the rate between stages.
        expansion: Width of the blocks' perceptrons in widths.
        transformer: Layers at the frame rate, after its blocks.
        recover_phase: Whether the head predicts magnitudes alone.
        ahead: STFT frames that phase recovery looks ahead.
        contrast, neighbours: Of the MagnitudeHead.
    """

    def __init__(
        self,
        input_width: int,
        condition_width: int,
        hop: int,
        window_hops: int,
        widths: Sequence[int],
        depths: Sequence[int],
        strides: Sequence[int],
        *,
        expansion: int,
        transformer: Sequence[TransformerLayer],
        recover_phase: bool = False,
        ahead: int = 0,
        contrast: float = 1.0,
        neighbours: int = 49,
    ) -> None:
        super().__init__()
        self.embed = nn.Linear(input_width, widths[0])
        self.condition = nn.Linear(condition_width, widths[0], bias=False)
        blocks: list[nn.Module] = []
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            if stage:
                blocks.append(Upsample(widths[stage - 1], width, strides[stage - 1]))
            blocks.extend(ConvNeXtBlock(width, expansion=expansion) for _ in range(depth))
            if not stage:
                blocks.extend(transformer)
        # Those at the frame rate come first.
        self.frame_blocks = depths[0] + len(transformer)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(widths[-1])
        self.head: OverlapAdd | PhaseRecovery
        if recover_phase:
            block = torch.Size(strides).numel()
            self.head = PhaseRecovery(hop, window_hops, block=block, ahead=ahead)
            bins = self.head.window_length // 2 + 1
            self.magnitude_head = MagnitudeHead(
                widths[0], widths[-1], bins, block, contrast=contrast, neighbours=neighbours
            )
        else:
            self.head = OverlapAdd(widths[-1], hop, window_hops)

    def forward(
        self,
        latents: Float[Tensor, "B T D"],
        condition: Float[Tensor, "B E"] | None = None,
        contrast: float | None = None,
    ) -> Float[Tensor, "B S"]:
        """The waveforms [B, S] of latents [B, T, D], spoken by whom and how `condition` [B, E] says.

        Where phases are recovered, `contrast` stands for the head's own if it is given.
        """
        frames = self.frames(latents, condition)
        if isinstance(self.head, PhaseRecovery):
            return self.head(self.magnitude_head.heard(self.compressed(frames), contrast))
        return self.head(self.features(frames))

    def frames(
        self, latents: Float[Tensor, "B T D"], condition: Float[Tensor, "B E"] | None = None
    ) -> Float[Tensor, "B T W"]:
        """What is known of each frame at the frame rate, the cheap part: training runs it on whole clips."""
        x = self.embed(latents)
        if condition is not None:
            x = x + self.condition(condition).unsqueeze(1)
        return self.blocks[: self.frame_blocks](x)

    def features(self, frames: Float[Tensor, "B T W"]) -> Float[Tensor, "B T2 C"]:
        """What is known at the STFT rate, of `frames` or of a stretch of them."""
        return self.norm(self.blocks[self.frame_blocks :](frames))

    def compressed(self, frames: Float[Tensor, "B T W"]) -> Float[Tensor, "B T2 N"]:
        """Where phases are recovered: the compressed magnitudes [B, T2, bins] of `frames`."""
        return self.magnitude_head(frames, self.features(frames))
