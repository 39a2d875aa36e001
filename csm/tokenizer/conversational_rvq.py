"""The voice tokenizer: waveform <-> 32 residual codebooks, the first ten semantic."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from csm import config as config_files
from csm.system.files import new_file
from csm.tokenizer.decoder import Decoder
from csm.tokenizer.encoder import Encoder
from csm.tokenizer.layers import streaming
from csm.tokenizer.packing import packed, unpacked
from csm.tokenizer.quantizer import SplitQuantizer
from csm.tokenizer.transformer import TransformerLayer
from csm.tokenizer.utterance_encoders import UtteranceEncoder


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """Sizes of a ConversationalRVQ.

    Attributes:
        sample_rate: Hz of the waveforms; one frame must be a whole number of STFT hops of whole samples.
        frame_rate: Frames per second.
        n_codebooks: Codebooks per frame, of which the first `semantic_codebooks` carry what is said.
        codebook_size, codebook_dim: Vectors per codebook and their width.
        hops_per_frame: STFT frames per codec frame, the product of `strides`.
        window_hops: STFT window in hops.
        strides: Reductions of the rate, from the STFT rate to the frame rate.
        encoder_widths, encoder_depths: Per stage, from the STFT rate down.
        decoder_widths, decoder_depths: Per stage, from the frame rate up.
        expansion: Width of the blocks' perceptrons, in widths of their stage.
        encoder_layers, decoder_layers: Transformer layers at the frame rate, of `attention_heads` heads, each
            seeing the last `attention_frames` frames; perceptrons are `attention_expansion` widths wide.
        recover_phase: The decoder predicts magnitudes, and phases are those that make its frames agree; else
            it predicts phases too, which takes judges and long training to be learned.
        ahead: STFT frames that phase recovery looks ahead, at most hops_per_frame: better sound, later.
        contrast, contrast_bins: Where phases are recovered, how much farther from their mean over so many
            STFT bins magnitudes are moved when decoded: see MagnitudeHead.
        speaker_dim, emotion_dim: Width of the utterance embeddings.
    """

    sample_rate: int = 24_000
    frame_rate: float = 12.5
    n_codebooks: int = 32
    codebook_size: int = 1024
    semantic_codebooks: int = 10
    codebook_dim: int = 64
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
    speaker_dim: int = 64
    emotion_dim: int = 16

    def __post_init__(self) -> None:
        for name in ("sample_rate", "frame_rate", "codebook_size", "codebook_dim", "hops_per_frame"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} is {getattr(self, name)}: expected above 0")
        if self.window_hops < 2:
            raise ValueError(
                f"window_hops is {self.window_hops}: expected at least 2, so that windows overlap"
            )
        samples = self.sample_rate / self.frame_rate
        if samples != int(samples) or int(samples) % self.hops_per_frame:
            raise ValueError(
                f"sample_rate {self.sample_rate} gives {samples} samples per frame, which is no multiple of "
                f"hops_per_frame {self.hops_per_frame}: choose other hops_per_frame and strides (8 and "
                f"(4, 2) fit 8000 and 16000 Hz) or another sample_rate (11025, 22050, 24000, 44100 and 48000 "
                f"fit 6)"
            )
        if torch.Size(self.strides).numel() != self.hops_per_frame:
            raise ValueError(f"strides {self.strides} must multiply to hops_per_frame {self.hops_per_frame}")
        stages = len(self.strides) + 1
        for name in ("encoder_widths", "encoder_depths", "decoder_widths", "decoder_depths"):
            if len(getattr(self, name)) != stages:
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} entries, expected {stages} (strides + 1)"
                )
        for name in ("encoder_layers", "decoder_layers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 0 or above")
        for name, width in (("encoder", self.encoder_widths[-1]), ("decoder", self.decoder_widths[0])):
            if self.attention_heads < 1 or width % self.attention_heads:
                raise ValueError(
                    f"attention_heads is {self.attention_heads}: expected a divisor of the {name}'s width at "
                    f"the frame rate, {width}"
                )
        for name in ("attention_frames", "attention_expansion", "expansion"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected 1 or more")
        if not self.contrast > 0 or self.contrast_bins < 1 or self.contrast_bins % 2 == 0:
            raise ValueError(
                f"contrast is {self.contrast}, contrast_bins {self.contrast_bins}: expected above 0, and odd"
            )
        if not 0 <= self.ahead <= self.hops_per_frame:
            raise ValueError(f"ahead is {self.ahead}: expected 0 to hops_per_frame = {self.hops_per_frame}")
        if not 0 < self.semantic_codebooks < self.n_codebooks:
            raise ValueError(
                f"semantic_codebooks is {self.semantic_codebooks}: expected 1 to n_codebooks - 1 = "
                f"{self.n_codebooks - 1}, so that some codebooks are left for the sound"
            )

    @property
    def samples_per_frame(self) -> int:
        """Samples of one codec frame."""
        return int(self.sample_rate / self.frame_rate)


class EncodeInfo(NamedTuple):
    """What `encode` knows beside the codes.

    Attributes:
        semantic: [B, T, C], sum of the semantic codebooks' vectors.
        latent: [B, T, D], what the decoder reads.
        speaker: [B, E], unit length: who speaks.
        emotion: [B, M], unit length: in which manner.
        commitment_loss: Scalar, mean squared distance of the projections from their code vectors.
    """

    semantic: Tensor
    latent: Tensor
    speaker: Tensor
    emotion: Tensor
    commitment_loss: Tensor


class ConversationalRVQ(nn.Module):
    """Waveforms to codes and back, at 12.5 frames per second.

    Encoder and decoder are causal; the decoder hands a sample out `latency_samples` after its frame has
    ended.

    Args:
        config: Sizes; the defaults are for 24 kHz.
        n_codebooks, codebook_size, sample_rate: Shortcuts that replace the config's fields.
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
        config = config or TokenizerConfig()
        self.config = config = dataclasses.replace(
            config,
            n_codebooks=config.n_codebooks if n_codebooks is None else n_codebooks,
            codebook_size=config.codebook_size if codebook_size is None else codebook_size,
            sample_rate=config.sample_rate if sample_rate is None else sample_rate,
        )
        hop = config.samples_per_frame // config.hops_per_frame
        width = config.encoder_widths[-1]
        self.encoder = Encoder(
            hop,
            config.window_hops,
            config.encoder_widths,
            config.encoder_depths,
            config.strides,
            expansion=config.expansion,
            transformer=_transformer(config, width, config.encoder_layers),
        )
        self.quantizer = SplitQuantizer(
            width, config.n_codebooks, config.semantic_codebooks, config.codebook_size, config.codebook_dim
        )
        self.decoder = Decoder(
            width,
            config.speaker_dim + config.emotion_dim,
            hop,
            config.window_hops,
            config.decoder_widths,
            config.decoder_depths,
            config.strides[::-1],
            expansion=config.expansion,
            transformer=_transformer(config, config.decoder_widths[0], config.decoder_layers),
            recover_phase=config.recover_phase,
            ahead=config.ahead,
            contrast=config.contrast,
            neighbours=config.contrast_bins,
        )
        bins = self.encoder.spectrum.feature_width // 3
        # STFT frames read together must fill codec frames: else the last ones are read in padded audio alone.
        stack = next(count for count in (3, 2, 1) if config.hops_per_frame % count == 0)
        self.speaker_encoder = UtteranceEncoder(bins, 96, config.speaker_dim, stack=stack)
        self.emotion_encoder = UtteranceEncoder(bins, 48, config.emotion_dim, stack=stack)
        self._stream_weights: dict[str, Tensor] | None = None

    @property
    def latency_samples(self) -> int:
        """Samples by which a stream's output trails its input, beyond the frame being collected."""
        return self.decoder.head.delay

    def pad_to_frames(self, audio: Float[Tensor, "B 1 S"]) -> Float[Tensor, "B 1 S2"]:
        """Zeros at the end up to a whole number of frames."""
        return F.pad(audio, (0, -audio.shape[-1] % self.config.samples_per_frame))

    def encode(
        self,
        audio: Float[Tensor, "B 1 S"],
        lengths: Int[Tensor, " B"] | None = None,
        *,
        num_codebooks: int | None = None,
    ) -> tuple[Int[Tensor, "B K T"], EncodeInfo]:
        """Codes of waveforms at `config.sample_rate`, full scale = 1.

        Inside `streaming` every call but the last must hold whole frames; the embeddings then are those of
        the call's own samples.

        Args:
            audio: [B, 1, S]; a last frame that is not full is filled with zeros.
            lengths: int64 [B], samples of each item before padding with zeros: the utterance embeddings look
                no further, and frames from ceil(length / samples_per_frame) on are padding. None: all S.
            num_codebooks: Only the first ones, 1 to n_codebooks.

        Returns:
            Codes int64 [B, K, T] with T = ceil(S / samples_per_frame), and what else is known.

        Raises:
            ValueError: On another shape, no samples, a value that is not finite, or lengths or num_codebooks
                out of range.
        """
        self._check_audio(audio)
        if lengths is None:
            lengths = torch.full((audio.shape[0],), audio.shape[-1], device=audio.device)
        elif (
            lengths.shape != audio.shape[:1] or int(lengths.min()) < 1 or int(lengths.max()) > audio.shape[-1]
        ):
            raise ValueError(
                f"lengths {lengths.tolist()}: expected one per item of audio {tuple(audio.shape)}, from 1 to "
                f"{audio.shape[-1]} samples"
            )
        if num_codebooks is not None and not 1 <= num_codebooks <= self.config.n_codebooks:
            raise ValueError(f"num_codebooks is {num_codebooks}: expected 1 to {self.config.n_codebooks}")
        audio = self.pad_to_frames(audio)
        latent, features = self.encoder(audio[:, 0])
        quantized = self.quantizer(latent, num_codebooks=num_codebooks)
        speaker, emotion = self.embed_utterance(features, lengths)
        info = EncodeInfo(quantized.semantic, quantized.latent, speaker, emotion, quantized.commitment_loss)
        return quantized.codes, info

    def embed_utterance(
        self, features: Float[Tensor, "B T C"], lengths: Int[Tensor, " B"] | None = None
    ) -> tuple[Float[Tensor, "B E"], Float[Tensor, "B M"]]:
        """Speaker [B, E] and emotion [B, M] embedding, of unit length, from the encoder's STFT features.

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
        """The waveform [B, 1, T * samples_per_frame] of codes.

        Inside `streaming` the output trails by `latency_samples`; `flush` hands out the rest.

        Args:
            codes: int64 [B, K, T]; K may be any prefix of the codebooks.
            speaker, emotion: [B, E] and [B, M] of `encode`, where known.
            contrast: Stands for the config's where phases are recovered; None takes the config's.

        Raises:
            ValueError: On another shape or dtype, no frames, too many codebooks or a code out of range.
        """
        config = self.config
        if codes.ndim != 3 or not 1 <= codes.shape[1] <= config.n_codebooks or codes.shape[2] == 0:
            raise ValueError(
                f"codes have shape {tuple(codes.shape)}: expected [B, K, T] with 1 <= K <= "
                f"{config.n_codebooks} and at least one frame"
            )
        if codes.dtype != torch.int64:
            raise ValueError(f"codes are {codes.dtype}: expected int64, as `encode` returns them")
        low, high = int(codes.min()), int(codes.max())
        if low < 0 or high >= config.codebook_size:
            raise ValueError(
                f"codes range over {low}..{high}: expected 0..{config.codebook_size - 1}; end-of-speech rows "
                f"and padding must be cut off before decoding"
            )
        dtype = torch.float64 if config.recover_phase else torch.float32
        return self.decode_latent(self.quantizer.decode(codes, dtype), speaker, emotion, contrast)

    def decode_latent(
        self,
        latent: Float[Tensor, "B T D"],
        speaker: Float[Tensor, "B E"] | None = None,
        emotion: Float[Tensor, "B M"] | None = None,
        contrast: float | None = None,
    ) -> Float[Tensor, "B 1 S"]:
        """The waveform [B, 1, S] of the quantizer's latent [B, T, D]; the rest as of `decode`."""
        condition = self.condition(len(latent), speaker, emotion)
        if not self.config.recover_phase:
            return self.decoder(latent, condition).unsqueeze(1)
        # Phases that agree are sensitive: a last bit of a magnitude moves them visibly. In fp64 what depends
        # on the cutting of a stream or on the batch is gone once the magnitudes are rounded to fp32.
        exact = self._stream_weights or self._exact_weights()
        inputs = latent.double(), None if condition is None else condition.double(), contrast
        waveform: Tensor = torch.func.functional_call(self.decoder, exact, inputs)
        return waveform.unsqueeze(1)

    def condition(
        self, batch: int, speaker: Float[Tensor, "B E"] | None, emotion: Float[Tensor, "B M"] | None
    ) -> Float[Tensor, "B EM"] | None:
        """What the decoder is told of an utterance: both embeddings, zeros for an unknown one, or None."""
        if speaker is None and emotion is None:
            return None
        blank = self.quantizer.semantic_in.weight.new_zeros
        return torch.cat(
            [
                blank(batch, self.config.speaker_dim) if speaker is None else speaker,
                blank(batch, self.config.emotion_dim) if emotion is None else emotion,
            ],
            dim=-1,
        )

    @contextmanager
    def streaming(self, batch_size: int) -> Iterator[None]:
        """Successive `encode` and `decode` calls continue one signal; call `flush` after the last frame.

        Args:
            batch_size: B of every call inside.

        Raises:
            ValueError: Streaming is entered already.
        """
        with streaming(self, batch_size):
            # Once a stream and not once a frame: weights do not change inside.
            self._stream_weights = self._exact_weights() if self.config.recover_phase else None
            try:
                yield
            finally:
                self._stream_weights = None

    def _exact_weights(self) -> dict[str, Tensor]:
        """The decoder's weights in fp64."""
        return {name: weight.detach().double() for name, weight in self.decoder.named_parameters()}

    def flush(self) -> Float[Tensor, "B 1 S"]:
        """The last `latency_samples` samples of a decoded stream: [B, 1, latency_samples].

        Raises:
            ValueError: Outside `streaming`.
        """
        return self.decoder.head.flush().unsqueeze(1)

    def code_vectors(self) -> Float[Tensor, "K V D"]:
        """What each code of each codebook adds to the latent that the decoder reads."""
        q = self.quantizer
        semantic = q.semantic.codebooks @ q.semantic_out.weight.T
        return torch.cat([semantic, q.acoustic.codebooks @ q.acoustic_out.weight.T]).detach()

    def save_pretrained(self, folder: Path | str, *, half: bool = False) -> None:
        """Writes config.json and model.safetensors; makes the folder.

        Args:
            folder: Where to.
            half: In half precision, the codebooks' vectors in 8 bits with a scale each, and without their
                running sums, which follow from vectors and usage: the packaged form, 4 times smaller. Else
                everything, as training goes on from it.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        config_files.save(self.config, folder / "config.json")
        state = {name: value.contiguous() for name, value in self.state_dict().items()}
        if half:
            state = packed(state)
        with new_file(folder / "model.safetensors") as file:
            save_file(state, file)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> ConversationalRVQ:
        """Reads a folder of `save_pretrained`; weights kept in half precision are read as fp32.

        Args:
            folder: With config.json and model.safetensors.

        Returns:
            The tokenizer in eval mode.

        Raises:
            ValueError: A file is missing, the config cannot be read, or the weights do not fit it.
        """
        folder = Path(folder)
        if not (folder / "config.json").is_file() or not (folder / "model.safetensors").is_file():
            raise ValueError(f"no tokenizer in {folder}: expected config.json and model.safetensors there")
        tokenizer = cls(config_files.load(TokenizerConfig, folder / "config.json"))
        try:
            tokenizer.load_state_dict(unpacked(load_file(folder / "model.safetensors")))
        except RuntimeError as error:
            raise ValueError(
                f"{folder}: model.safetensors does not fit config.json; save both anew ({error})"
            ) from error
        return tokenizer.eval()

    def _check_audio(self, audio: Tensor) -> None:
        if audio.ndim != 3 or audio.shape[1] != 1 or audio.shape[0] == 0:
            raise ValueError(
                f"audio has shape {tuple(audio.shape)}: expected [B, 1, S] at {self.config.sample_rate} Hz; "
                f"mix channels down or encode them one by one"
            )
        if audio.shape[-1] == 0:
            raise ValueError("audio has no samples: expected at least one")
        if not audio.is_floating_point():
            raise ValueError(f"audio is {audio.dtype}: expected floating point, full scale = 1")
        if not bool(torch.isfinite(audio).all()):
            raise ValueError("audio holds NaN or infinite samples: repair or drop the recording first")


def _transformer(config: TokenizerConfig, width: int, layers: int) -> list[TransformerLayer]:
    return [
        TransformerLayer(
            width,
            n_heads=config.attention_heads,
            window=config.attention_frames,
            expansion=config.attention_expansion,
        )
        for _ in range(layers)
    ]
