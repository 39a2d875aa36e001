"""One latent vector per frame to a waveform, causally."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.feature_head import FeatureHead
from csm.tokenizer.layers import ConvNeXtBlock, Upsample
from csm.tokenizer.magnitude_head import MagnitudeHead
from csm.tokenizer.phase_recovery import PhaseRecovery
from csm.tokenizer.spectrum import OverlapAdd
from csm.tokenizer.transformer import transformer_layers
from csm.tokenizer.vocoder import Vocoder


class Decoder(nn.Module):
    """The encoder mirrored: ConvNeXt stages of rising rate and falling width, then an inverse STFT or
    a vocoder.

    The utterance condition (speaker and emotion embedding) is added before the first stage.

    Args:
        config: Sizes of the tokenizer; latents have the width of the encoder's last stage.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        widths, depths, strides = config.decoder_widths, config.decoder_depths, config.strides[::-1]
        # Created first, so that initial weights of one seed stay the same.
        transformer = transformer_layers(config, widths[0], config.decoder_layers)
        self.embed = nn.Linear(config.encoder_widths[-1], widths[0])
        self.condition = nn.Linear(config.speaker_dim + config.emotion_dim, widths[0], bias=False)
        blocks: list[nn.Module] = []
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            if stage:
                blocks.append(Upsample(widths[stage - 1], width, strides[stage - 1]))
            blocks.extend(ConvNeXtBlock(width, expansion=config.expansion) for _ in range(depth))
            if not stage:
                blocks.extend(transformer)
        # The blocks at the frame rate come first.
        self.frame_blocks = depths[0] + len(transformer)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(widths[-1])
        self.head: OverlapAdd | PhaseRecovery | Vocoder
        if config.recover_phase:
            self.head = PhaseRecovery(
                config.hop, config.window_hops, block=config.hops_per_frame, ahead=config.ahead
            )
            self.magnitude_head = MagnitudeHead(
                widths[0],
                widths[-1],
                config.bins,
                config.hops_per_frame,
                contrast=config.contrast,
                neighbours=config.contrast_bins,
            )
        elif config.vocoder:
            self.head = Vocoder()
            self.feature_head = FeatureHead(widths[0], widths[-1])
        else:
            self.head = OverlapAdd(widths[-1], config.hop, config.window_hops)

    def forward(
        self,
        latents: Float[Tensor, "B T D"],
        condition: Float[Tensor, "B E"] | None = None,
        contrast: float | None = None,
    ) -> Float[Tensor, "B S"]:
        """Returns the waveforms [B, S] of latents [B, T, D].

        Args:
            latents: Latents of the quantizer.
            condition: Speaker and emotion embedding, [B, E]. None: unknown.
            contrast: Contrast of the magnitudes, where phases are recovered. None: the config's.
        """
        frames = self.frames(latents, condition)
        if isinstance(self.head, PhaseRecovery):
            return self.head(self.magnitude_head.linear_magnitudes(self.compressed(frames), contrast))
        if isinstance(self.head, Vocoder):
            return self.head(self.feature_head.unweighted(self.feature_head(frames, self.features(frames))))
        return self.head(self.features(frames))

    def frames(
        self, latents: Float[Tensor, "B T D"], condition: Float[Tensor, "B E"] | None = None
    ) -> Float[Tensor, "B T W"]:
        """Returns hidden states at the frame rate: the cheap part, which training runs on whole clips."""
        x = self.embed(latents)
        if condition is not None:
            x = x + self.condition(condition).unsqueeze(1)
        return self.blocks[: self.frame_blocks](x)

    def features(self, frames: Float[Tensor, "B T W"]) -> Float[Tensor, "B T2 C"]:
        """Returns hidden states at the STFT rate, of all `frames` or of a slice of them."""
        return self.norm(self.blocks[self.frame_blocks :](frames))

    def compressed(self, frames: Float[Tensor, "B T W"]) -> Float[Tensor, "B T2 N"]:
        """Returns the compressed magnitudes [B, T2, bins] of `frames`, where phases are recovered."""
        return self.magnitude_head(frames, self.features(frames))
