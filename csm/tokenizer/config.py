"""Sizes and rates of a tokenizer, checked when they are set."""

from __future__ import annotations

import math
from dataclasses import dataclass

# Features of a codec frame that a vocoder speaks from: 22 every 10 ms (`csm.tokenizer.vocoder_features`).
VOCODER_WIDTH = 176


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Sizes of a ConversationalRVQ.

    Attributes:
        sample_rate: Sample rate of the waveforms in Hz; one frame must hold a whole number of STFT hops, one
            hop a whole number of samples.
        frame_rate: Codec frames per second.
        n_codebooks: Number of codebooks per frame, the semantic ones first.
        semantic_codebooks: Number of semantic codebooks, which are trained to carry the text; 1 to
            n_codebooks - 1.
        codebook_size: Number of vectors per codebook.
        codebook_dim: Width of the semantic codebooks' vectors and, with acoustic_dim 0, of the acoustic
            codebooks' vectors.
        acoustic_dim: Width of the acoustic codebooks' vectors; 0: codebook_dim.
        hops_per_frame: STFT frames per codec frame, the product of `strides`.
        window_hops: Length of the STFT window in hops.
        strides: Factors between the rates of the encoder's stages, from the STFT rate to the frame rate.
        encoder_widths: Width of each stage of the encoder, from the STFT rate down to the frame rate.
        encoder_depths: Number of blocks of each stage of the encoder, from the STFT rate down to the frame
            rate.
        decoder_widths: Width of each stage of the decoder, from the frame rate up to the STFT rate.
        decoder_depths: Number of blocks of each stage of the decoder, from the frame rate up to the STFT
            rate.
        expansion: Hidden width of the blocks' perceptrons, in multiples of the stage's width.
        encoder_layers: Number of transformer layers of the encoder, at the frame rate; 0: none.
        decoder_layers: Number of transformer layers of the decoder, at the frame rate; 0: none.
        attention_heads: Number of attention heads of each transformer layer, a divisor of its width.
        attention_frames: Number of frames that each transformer layer attends to, the present one included.
        attention_expansion: Hidden width of each transformer layer's perceptron, in multiples of the layer's
            width.
        recover_phase: Whether the decoder predicts magnitudes alone and phases are recovered from the overlap
            of its frames. Predicted phases need discriminators and a long training.
        ahead: STFT frames of lookahead in phase recovery, at most hops_per_frame: more gives better sound and
            a higher latency.
        contrast: Factor by which decoded magnitudes are moved away from their mean over `contrast_bins` STFT
            bins, where phases are recovered; see MagnitudeHead.
        contrast_bins: Width in STFT bins of the mean that contrast refers to, an odd number.
        vocoder: Whether the acoustic codes describe a vocoder's features (`csm.tokenizer.vocoder_features`)
            instead of an STFT: the encoder is a fixed analysis, the decoder predicts the features again, and
            a vocoder synthesises speech from them. The last of encoder_widths is then 176, the features of a
            frame; the encoder's other fields have no effect.
        speaker_dim: Width of the utterance's speaker embedding.
        emotion_dim: Width of the utterance's emotion embedding.
        semantic_layers: Number of transformer layers of the semantic encoder, which reads log-mel features
            and alone determines the semantic codes (`csm.tokenizer.semantic`). 0: no such encoder; the
            semantic codebooks quantize the acoustic encoder's latent.
        semantic_width: Width of the semantic encoder.
        semantic_heads: Number of attention heads of each layer of the semantic encoder.
        semantic_block_frames: Number of frames of a block inside which the semantic encoder's attention is
            bidirectional: a block of n frames looks ahead by up to n - 1 frames, and a stream is encoded in
            whole blocks.
        semantic_past_frames: Number of frames before a block that the semantic encoder attends to.
        prediction_frames: Number of frames of semantic codes, the present one included, from which the
            encoder's latent is predicted; the acoustic codebooks quantize the residual of that prediction.
        prediction_hidden: Hidden width of the network that predicts the encoder's latent; 0: a linear map.

    Raises:
        ValueError: A field is out of range, or fields do not fit each other.
    """

    sample_rate: int = 24_000
    frame_rate: float = 12.5
    n_codebooks: int = 32
    codebook_size: int = 1024
    semantic_codebooks: int = 10
    codebook_dim: int = 64
    acoustic_dim: int = 0
    hops_per_frame: int = 6
    window_hops: int = 4
    strides: tuple[int, ...] = (3, 2)
    encoder_widths: tuple[int, ...] = (192, 320, 512)
    encoder_depths: tuple[int, ...] = (2, 3, 3)
    decoder_widths: tuple[int, ...] = (512, 384, 256)
    decoder_depths: tuple[int, ...] = (3, 4, 4)
    expansion: int = 3
    encoder_layers: int = 2
    decoder_layers: int = 2
    attention_heads: int = 8
    attention_frames: int = 50
    attention_expansion: int = 2
    recover_phase: bool = False
    ahead: int = 3
    contrast: float = 1.0
    contrast_bins: int = 49
    vocoder: bool = False
    speaker_dim: int = 64
    emotion_dim: int = 16
    semantic_layers: int = 0
    semantic_width: int = 384
    semantic_heads: int = 6
    semantic_block_frames: int = 1
    semantic_past_frames: int = 64
    prediction_frames: int = 1
    prediction_hidden: int = 0

    def __post_init__(self) -> None:
        for name in ("sample_rate", "frame_rate", "codebook_size", "codebook_dim", "hops_per_frame"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: expected above 0")
        if self.acoustic_dim < 0:
            raise ValueError(f"acoustic_dim is {self.acoustic_dim}: expected 0 (codebook_dim) or above")
        self._check_rates()
        self._check_stages()
        self._check_transformers()
        self._check_phase_recovery()
        self._check_vocoder()
        self._check_semantic_encoder()
        if not 0 < self.semantic_codebooks < self.n_codebooks:
            raise ValueError(
                f"semantic_codebooks is {self.semantic_codebooks}: expected 1 to n_codebooks - 1 = "
                f"{self.n_codebooks - 1}, so that at least one acoustic codebook is left"
            )

    @property
    def samples_per_frame(self) -> int:
        """Samples of one codec frame."""
        return int(self.sample_rate / self.frame_rate)

    @property
    def hop(self) -> int:
        """Samples between STFT frames."""
        return self.samples_per_frame // self.hops_per_frame

    @property
    def bins(self) -> int:
        """Frequency bins of the STFT."""
        return self.hop * self.window_hops // 2 + 1

    def _check_rates(self) -> None:
        samples = self.sample_rate / self.frame_rate
        if samples != int(samples) or int(samples) % self.hops_per_frame:
            raise ValueError(
                f"sample_rate is {self.sample_rate}: its {samples} samples per frame are no multiple of "
                f"hops_per_frame = {self.hops_per_frame}; set hops_per_frame and strides (8 and (4, 2) fit "
                f"8000 and 16000 Hz) or another sample_rate (11025, 22050, 24000, 44100 and 48000 fit 6)"
            )
        if self.window_hops < 2:
            raise ValueError(
                f"window_hops is {self.window_hops}: expected at least 2, so that windows overlap"
            )

    def _check_stages(self) -> None:
        if math.prod(self.strides) != self.hops_per_frame:
            raise ValueError(
                f"strides is {self.strides}: expected factors that multiply to hops_per_frame = "
                f"{self.hops_per_frame}"
            )
        stages = len(self.strides) + 1
        for name in ("encoder_widths", "encoder_depths", "decoder_widths", "decoder_depths"):
            if len(getattr(self, name)) != stages:
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} entries: expected {stages}, one more than strides"
                )
        if self.expansion < 1:
            raise ValueError(f"expansion is {self.expansion}: expected 1 or more")

    def _check_transformers(self) -> None:
        for name in ("encoder_layers", "decoder_layers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 0 or more")
        for name, width in (("encoder", self.encoder_widths[-1]), ("decoder", self.decoder_widths[0])):
            if self.attention_heads < 1 or width % self.attention_heads:
                raise ValueError(
                    f"attention_heads is {self.attention_heads}: expected a divisor of the {name}'s width at "
                    f"the frame rate, {width}"
                )
        for name in ("attention_frames", "attention_expansion"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")

    def _check_phase_recovery(self) -> None:
        if not self.contrast > 0:
            raise ValueError(f"contrast is {self.contrast}: expected above 0")
        if self.contrast_bins < 1 or self.contrast_bins % 2 == 0:
            raise ValueError(f"contrast_bins is {self.contrast_bins}: expected an odd number above 0")
        if not 0 <= self.ahead <= self.hops_per_frame:
            raise ValueError(f"ahead is {self.ahead}: expected 0 to hops_per_frame = {self.hops_per_frame}")

    def _check_vocoder(self) -> None:
        if not self.vocoder:
            return
        rates = self.sample_rate, self.frame_rate, self.hops_per_frame
        if rates != (24_000, 12.5, 8) or self.recover_phase or not self.semantic_layers:
            raise ValueError(
                "vocoder is set: expected sample_rate 24000, frame_rate 12.5, hops_per_frame 8, a semantic "
                f"encoder and no recover_phase, not {rates}, semantic_layers {self.semantic_layers} and "
                f"recover_phase {self.recover_phase}"
            )
        if self.decoder_widths[0] < VOCODER_WIDTH:
            raise ValueError(
                f"vocoder is set: expected the first of decoder_widths to be at least {VOCODER_WIDTH}, the "
                f"width of the decoder's linear path, not {self.decoder_widths[0]}"
            )
        if self.encoder_widths[-1] != VOCODER_WIDTH or self.acoustic_dim != VOCODER_WIDTH:
            raise ValueError(
                "vocoder is set: expected the last of encoder_widths and acoustic_dim to be a frame's "
                f"features, {VOCODER_WIDTH}, not {self.encoder_widths[-1]} and {self.acoustic_dim}"
            )

    def _check_semantic_encoder(self) -> None:
        if self.prediction_frames < 1 or self.prediction_hidden < 0:
            raise ValueError(
                f"prediction_frames is {self.prediction_frames} and prediction_hidden "
                f"{self.prediction_hidden}: expected at least 1 and at least 0"
            )
        if not self.semantic_layers and (self.prediction_frames > 1 or self.prediction_hidden):
            raise ValueError(
                f"prediction_frames is {self.prediction_frames} and prediction_hidden "
                f"{self.prediction_hidden}: expected 1 and 0 without semantic_layers; the codes of a latent "
                f"are searched with the linear map of its own frame"
            )
        if self.semantic_layers < 0:
            raise ValueError(f"semantic_layers is {self.semantic_layers}: expected 0 or more")
        if self.semantic_layers and (
            self.sample_rate % 400 or self.sample_rate < 16_000 or self.frame_rate != 12.5
        ):
            raise ValueError(
                f"semantic_layers is {self.semantic_layers}: expected a sample_rate in multiples of 400 "
                f"from 16000 on and a frame_rate of 12.5, not {self.sample_rate} and {self.frame_rate}; the "
                f"semantic encoder has 50 steps a second, four in a frame"
            )
