"""The voice tokenizer: waveform <-> residual codebooks, of which the first ones are semantic."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from csm.tokenizer.config import TokenizerConfig
from csm.tokenizer.decoder import Decoder
from csm.tokenizer.encoder import Encoder
from csm.tokenizer.feature_encoder import FeatureEncoder
from csm.tokenizer.input_checks import check_audio, check_codes, checked_lengths
from csm.tokenizer.io.folder import read_tokenizer, write_tokenizer
from csm.tokenizer.layers import end_streams, streaming, whole_frames
from csm.tokenizer.quantizer import SplitQuantizer
from csm.tokenizer.semantic.semantic_encoder import SemanticEncoder
from csm.tokenizer.utterance_encoders import UtteranceEncoder


class EncodeInfo(NamedTuple):
    """Outputs of `encode` beside the codes.

    Attributes:
        semantic: Sum of the semantic codebooks' vectors, [B, T, C].
        latent: Sum that the decoder reads, [B, T, D].
        speaker: Speaker embedding of unit length, [B, E].
        emotion: Emotion embedding of unit length, [B, M].
        commitment_loss: Mean squared distance of the projections from their code vectors, a scalar.
    """

    semantic: Tensor
    latent: Tensor
    speaker: Tensor
    emotion: Tensor
    commitment_loss: Tensor


class ConversationalRVQ(nn.Module):
    """Encodes waveforms to residual codes and decodes them, causally.

    The decoder's output for a frame is complete `latency_samples` after the frame's end.

    Args:
        config: Sizes; the defaults are for 24 kHz.
        n_codebooks, codebook_size, sample_rate: Values that replace those of the config.

    Raises:
        ValueError: The values do not fit the config.
    """

    def __init__(
        self,
        config: TokenizerConfig | None = None,
        *,
        n_codebooks: int | None = None,
        codebook_size: int | None = None,
        sample_rate: int | None = None,
    ) -> None:
        super().__init__()
        given = {"n_codebooks": n_codebooks, "codebook_size": codebook_size, "sample_rate": sample_rate}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self.config = config = dataclasses.replace(config or TokenizerConfig(), **changes)
        self.encoder: Encoder | FeatureEncoder
        self.encoder = FeatureEncoder(config) if config.vocoder else Encoder(config)
        self.quantizer = SplitQuantizer(
            config.encoder_widths[-1],
            config.n_codebooks,
            config.semantic_codebooks,
            config.codebook_size,
            config.codebook_dim,
            acoustic_dim=config.acoustic_dim,
            semantic_encoder=config.semantic_layers > 0,
            prediction_frames=config.prediction_frames,
            prediction_hidden=config.prediction_hidden,
        )
        self.semantic_encoder = SemanticEncoder(config) if config.semantic_layers else None
        self.decoder = Decoder(config)
        # A stack of STFT frames must divide a codec frame: else its last frames are read with padding alone.
        stack = next(count for count in (3, 2, 1) if config.hops_per_frame % count == 0)
        self.speaker_encoder = UtteranceEncoder(config.bins, 96, config.speaker_dim, stack=stack)
        self.emotion_encoder = UtteranceEncoder(config.bins, 48, config.emotion_dim, stack=stack)
        self._stream_weights: dict[str, Tensor] | None = None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.decoder.embed.weight.device

    @property
    def latency_samples(self) -> int:
        """Samples by which a stream's output trails its input, beyond the frame that is being filled."""
        return self.decoder.head.delay

    def pad_to_frames(self, audio: Float[Tensor, "B 1 S"]) -> Float[Tensor, "B 1 S2"]:
        """Appends zeros up to a whole number of frames."""
        return whole_frames(audio, self.config.samples_per_frame)

    def encode(
        self,
        audio: Float[Tensor, "B 1 S"],
        lengths: Int[Tensor, " B"] | None = None,
        *,
        num_codebooks: int | None = None,
    ) -> tuple[Int[Tensor, "B K T"], EncodeInfo]:
        """Returns the codes of waveforms at `config.sample_rate`, full scale = 1.

        Inside `streaming` every call but the last must hold whole frames; the embeddings are then those of
        the call's own samples.

        Args:
            audio: [B, 1, S]; an incomplete last frame is filled with zeros.
            lengths: int64 [B], samples of each item before padding with zeros. The utterance embeddings read
                no further, and frames from ceil(length / samples_per_frame) on are padding. None: all S.
            num_codebooks: Codebooks to search, a prefix: 1 to n_codebooks. None: all.

        Returns:
            Codes int64 [B, K, T] with T = ceil(S / samples_per_frame), and the other outputs.

        Raises:
            ValueError: `audio` has another shape or dtype, no samples or a value that is not finite, or
                lengths or num_codebooks are out of range.
        """
        check_audio(audio, self.config)
        lengths = checked_lengths(lengths, audio)
        if num_codebooks is not None and not 1 <= num_codebooks <= self.config.n_codebooks:
            raise ValueError(f"num_codebooks is {num_codebooks}: expected 1 to {self.config.n_codebooks}")
        audio = self.pad_to_frames(audio)
        latent, features = self.encoder(audio[:, 0])
        quantized = self.quantizer(
            latent, num_codebooks=num_codebooks, semantic=self.semantic_rows(audio[:, 0])
        )
        speaker, emotion = self.embed_utterance(features, lengths)
        info = EncodeInfo(quantized.semantic, quantized.latent, speaker, emotion, quantized.commitment_loss)
        return quantized.codes, info

    def semantic_rows(self, waveform: Float[Tensor, "B S"]) -> Float[Tensor, "B T C"] | None:
        """Returns the semantic encoder's rows of whole frames; None without such an encoder."""
        return None if self.semantic_encoder is None else self.semantic_encoder(waveform)

    def embed_utterance(
        self, features: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B E"], Float[Tensor, "B M"]]:
        """Returns the speaker [B, E] and the emotion [B, M] embedding of the encoder's STFT features.

        Args:
            features: [B, T, C], T in STFT frames.
            lengths: int64 [B], samples before padding. None: no padding.
        """
        mask = None
        if lengths is not None:
            hop = self.encoder.spectrum.hop
            steps = torch.arange(features.shape[1], device=features.device)
            mask = steps < ((lengths.to(features.device) + hop - 1) // hop).unsqueeze(1)
        magnitudes = features[..., : features.shape[-1] // 3]
        return self.speaker_encoder(magnitudes, mask), self.emotion_encoder(magnitudes, mask)

    def decode(
        self,
        codes: Int[Tensor, "B K T"],
        *,
        speaker: Float[Tensor, "B E"] | None = None,
        emotion: Float[Tensor, "B M"] | None = None,
        contrast: float | None = None,
    ) -> Float[Tensor, "B 1 S"]:
        """Returns the waveform [B, 1, T * samples_per_frame] of codes.

        Inside `streaming` the output trails by `latency_samples`; `flush` returns the rest.

        Args:
            codes: int64 [B, K, T]; K may be any prefix of the codebooks.
            speaker, emotion: Embeddings [B, E] and [B, M] of `encode`. None: unknown.
            contrast: Contrast of recovered phases' magnitudes. None: the config's.

        Raises:
            ValueError: `codes` has another shape or dtype, no frames, too many codebooks or a code out of
                range.
        """
        check_codes(codes, self.config)
        dtype = torch.float64 if self._decodes_exactly else torch.float32
        return self.decode_latent(self.quantizer.decode(codes, dtype), speaker, emotion, contrast)

    def decode_latent(
        self,
        latent: Float[Tensor, "B T D"],
        speaker: Float[Tensor, "B E"] | None = None,
        emotion: Float[Tensor, "B M"] | None = None,
        contrast: float | None = None,
    ) -> Float[Tensor, "B 1 S"]:
        """Returns the waveform [B, 1, S] of the quantizer's latent [B, T, D]; see `decode`."""
        condition = self.condition(len(latent), speaker, emotion)
        if not self._decodes_exactly:
            return self.decoder(latent, condition).unsqueeze(1)
        # Recovered phases and a vocoder amplify a last bit. Products in fp64, rounded to fp32 before these,
        # make the output independent of the batch and of how a stream is cut.
        exact = self._stream_weights or self._exact_weights()
        inputs = latent.double(), None if condition is None else condition.double(), contrast
        waveform: Tensor = torch.func.functional_call(self.decoder, exact, inputs)
        return waveform.unsqueeze(1)

    def condition(
        self, batch: int, speaker: Float[Tensor, "B E"] | None, emotion: Float[Tensor, "B M"] | None
    ) -> Float[Tensor, "B EM"] | None:
        """Returns the decoder's condition: both embeddings, zeros for a missing one, None without any."""
        if speaker is None and emotion is None:
            return None
        blank = self.quantizer.semantic_out.weight.new_zeros
        return torch.cat(
            [
                blank(batch, self.config.speaker_dim) if speaker is None else speaker,
                blank(batch, self.config.emotion_dim) if emotion is None else emotion,
            ],
            dim=-1,
        )

    @contextmanager
    def streaming(self, batch_size: int) -> Iterator[None]:
        """Makes successive `encode` and `decode` calls continue one signal; `flush` ends it.

        Args:
            batch_size: B of every call inside.

        Raises:
            ValueError: The tokenizer is streaming already.
        """
        with streaming(self, batch_size):
            # Weights do not change inside: they are converted once per stream instead of once per frame.
            self._stream_weights = self._exact_weights() if self._decodes_exactly else None
            try:
                yield
            finally:
                self._stream_weights = None

    def flush(self) -> Float[Tensor, "B 1 S"]:
        """Returns the last `latency_samples` samples of a decoded stream: [B, 1, latency_samples].

        Raises:
            ValueError: The call is outside `streaming`.
        """
        return self.decoder.head.flush().unsqueeze(1)

    def with_own_state(self) -> ConversationalRVQ:
        """Returns a tokenizer with the same weights and a streaming state of its own."""
        shared = {id(tensor): tensor for tensor in (*self.parameters(), *self.buffers())}
        own = copy.deepcopy(self, shared)
        # This one may be in the middle of a stream; the other one is not.
        own._stream_weights = None
        end_streams(own)
        return own

    def code_vectors(self) -> Float[Tensor, "K V D"]:
        """Returns vectors of all codes whose sums over a frame measure how similar frames are.

        They are what a code adds to the latent that the decoder reads. With a semantic encoder that would
        measure words by their sound: the halves then lie side by side, each in the space in which
        its codes are searched and with first codebooks of one norm. The nearest codes of such a sum are the
        nearest of each half.
        """
        q = self.quantizer
        if self.semantic_encoder is None:
            semantic = q.semantic.codebooks @ q.semantic_out.weight.T
            return torch.cat([semantic, q.acoustic.codebooks @ q.acoustic_out.weight.T]).detach()
        halves = [part.codebooks / centred_norm(part.codebooks[0]) for part in (q.semantic, q.acoustic)]
        widths = q.semantic.codebook_dim, q.acoustic.codebook_dim
        return torch.cat([F.pad(halves[0], (0, widths[1])), F.pad(halves[1], (widths[0], 0))]).detach()

    def save_pretrained(self, folder: Path | str, *, half: bool = False) -> None:
        """Writes config.json and model.safetensors; makes the folder.

        Args:
            folder: Destination.
            half: Whether to write the packaged form, 4 times smaller: weights in half precision, codebook
                vectors in int8 with a scale each, without their running statistics. A training can only
                resume its codebook statistics from the full form.
        """
        write_tokenizer(Path(folder), self.config, self.state_dict(), half=half)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> ConversationalRVQ:
        """Reads a folder of `save_pretrained`; weights of the packaged form become fp32.

        Args:
            folder: Folder with config.json and model.safetensors.

        Returns:
            The tokenizer in eval mode.

        Raises:
            ValueError: A file is missing, the config cannot be read, or the weights do not fit it.
        """
        config, state = read_tokenizer(Path(folder))
        tokenizer = cls(config)
        try:
            tokenizer.load_state_dict(state)
        except RuntimeError as error:
            raise ValueError(
                f"{folder}: model.safetensors does not fit config.json; save both again ({error})"
            ) from error
        return tokenizer.eval()

    @property
    def _decodes_exactly(self) -> bool:
        return self.config.recover_phase or self.config.vocoder

    def _exact_weights(self) -> dict[str, Tensor]:
        """Returns the decoder's weights in fp64."""
        return {name: weight.detach().double() for name, weight in self.decoder.named_parameters()}


def centred_norm(vectors: Float[Tensor, "V C"]) -> Float[Tensor, ""]:
    """Returns the root mean square of the vectors' distances from their mean."""
    centred = vectors - vectors.mean(dim=0)
    return centred.square().sum(dim=1).mean().sqrt().clamp_min(1e-12)
