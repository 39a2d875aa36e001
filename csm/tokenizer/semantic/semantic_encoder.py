"""Waveform to the rows that the semantic codebooks quantize: a recogniser's encoder, folded to frames."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.semantic.log_mel import LogMel
from csm.tokenizer.semantic.speech_encoder import STEPS_PER_FRAME, SpeechEncoder, SpeechEncoderConfig


class SemanticEncoder(nn.Module):
    """Log-mel features through a speech encoder; the four steps of a frame become one row.

    It sees the waveform alone and is trained by text alone (`csm.training.semantic_task`), as in
    GLM-4-Voice's and CosyVoice's tokenizers, where a quantizer lies inside a recogniser's encoder: its
    codebooks are no prefix of a residual chain that describes sound.

    Args:
        config: Sizes of the tokenizer, `semantic_layers` above 0.
    """

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        self.log_mel = LogMel(config.sample_rate)
        self.encoder = SpeechEncoder(
            SpeechEncoderConfig(
                width=config.semantic_width,
                n_layers=config.semantic_layers,
                n_heads=config.semantic_heads,
                block_frames=config.semantic_block_frames,
                past_frames=config.semantic_past_frames,
            )
        )
        self.fold = nn.Linear(STEPS_PER_FRAME * config.semantic_width, config.codebook_dim)

    def forward(self, waveform: Float[Tensor, "B S"], first: int = 0) -> Float[Tensor, "B T C"]:
        """Returns rows [B, T, C] of waveforms [B, S], full scale = 1, S a multiple of the samples per frame.

        Args:
            waveform: Samples.
            first: Position of the first step, outside streams; see `SpeechEncoder.forward`.
        """
        return self.rows(self.log_mel(waveform), first)

    def rows(self, log_mel: Float[Tensor, "B M 80"], first: int = 0) -> Float[Tensor, "B T C"]:
        """Returns rows [B, T, C] of log-mel features, eight steps of 10 ms a frame."""
        rows: Tensor = self.fold(self.encoder(log_mel, first).unflatten(1, (-1, STEPS_PER_FRAME)).flatten(2))
        return rows
