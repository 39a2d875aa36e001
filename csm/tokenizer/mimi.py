"""Kyutai's Mimi with the interface of ConversationalRVQ, by Hugging Face's transformers (extra `[hf]`).

Mimi (Defossez et al. 2024, the codec of Moshi) encodes 24 kHz audio to 12.5 frames per second of up to 32
codebooks of 2048 vectors, the first one semantic. Its weights are not part of this package: they are read
from a folder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from torch import Tensor, nn

from csm.system.extras import missing_package
from csm.tokenizer.input_checks import check_audio, check_codes, checked_lengths
from csm.tokenizer.mimi_stream import MimiDecoderStream

if TYPE_CHECKING:
    from transformers import MimiModel


@dataclass(frozen=True, kw_only=True)
class MimiTokenizerConfig:
    """Sizes that users of the codes need, under the names of TokenizerConfig.

    Attributes:
        sample_rate: Sample rate of the waveforms in Hz.
        frame_rate: Codec frames per second.
        n_codebooks: Codebooks per frame; the first `semantic_codebooks` are semantic.
        codebook_size: Vectors per codebook.
    """

    sample_rate: int
    frame_rate: float
    n_codebooks: int
    codebook_size: int
    semantic_codebooks: int

    @property
    def samples_per_frame(self) -> int:
        """Samples of one codec frame."""
        return int(self.sample_rate / self.frame_rate)


class MimiInfo(NamedTuple):
    """Outputs of `encode` beside the codes.

    Attributes:
        frames: Frames of each item before padding, int64 [B].
        speaker, emotion: Embeddings of width 0: the codes carry the voice, [B, 0].
    """

    frames: Tensor
    speaker: Tensor
    emotion: Tensor


class MimiTokenizer(nn.Module):
    """Encodes waveforms and decodes codes by Mimi, for inference.

    Args:
        model: MimiModel of transformers, of any size.
        n_codebooks: Codebooks to encode with, a prefix of the model's. None: all.

    Raises:
        ValueError: n_codebooks is out of range.
    """

    def __init__(self, model: MimiModel, *, n_codebooks: int | None = None) -> None:
        super().__init__()
        available = int(model.config.num_quantizers)
        count = available if n_codebooks is None else n_codebooks
        semantic = int(model.config.num_semantic_quantizers)
        if not semantic < count <= available:
            raise ValueError(f"n_codebooks is {count}: expected {semantic + 1} to {available} with this Mimi")
        self.model = model.eval().requires_grad_(False)
        self.config = MimiTokenizerConfig(
            sample_rate=int(model.config.sampling_rate),
            frame_rate=float(model.config.frame_rate),
            n_codebooks=count,
            codebook_size=int(model.config.codebook_size),
            semantic_codebooks=semantic,
        )
        self._stream: MimiDecoderStream | None = None

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def latency_samples(self) -> int:
        """Samples by which a stream's output trails its input, beyond the frame that is being filled."""
        return 0

    @classmethod
    def from_pretrained(cls, folder: Path | str, *, n_codebooks: int | None = None) -> MimiTokenizer:
        """Reads a local folder of transformers (config.json, model.safetensors); downloads nothing.

        Args:
            folder: Folder of a Mimi, or of a CSM that contains one.
            n_codebooks: Codebooks to encode with, a prefix. None: all.

        Raises:
            ValueError: transformers is missing, or the folder holds no Mimi.
        """
        try:
            from transformers import MimiConfig, MimiModel
        except ImportError as error:
            raise ValueError(missing_package("transformers", "Mimi")) from error
        if not (Path(folder) / "config.json").is_file():
            raise ValueError(f"no Mimi in {folder}: expected config.json and model.safetensors there")
        raw = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        if raw.get("model_type") == "csm":
            # transformers' loader maps the names of the file to those of the module.
            loaded: Any = MimiModel.from_pretrained(
                None,
                config=MimiConfig(**(raw.get("codec_config") or {})),
                state_dict=_codec_weights(Path(folder)),
                output_loading_info=True,
            )
            mimi, found = loaded
            wrong = sorted(name for names in found.values() for name in names)
            if wrong:
                raise ValueError(
                    f"no complete Mimi in {folder}: its weights and its codec_config differ in {wrong}; copy "
                    f"or download the folder of CsmForConditionalGeneration again"
                )
            return cls(mimi, n_codebooks=n_codebooks)
        try:
            model = MimiModel.from_pretrained(str(folder), local_files_only=True, use_safetensors=True)
        except OSError as error:
            raise ValueError(f"no Mimi in {folder}: {error}") from error
        return cls(model, n_codebooks=n_codebooks)

    @torch.no_grad()
    def encode(
        self,
        audio: Float[Tensor, "B 1 S"],
        lengths: Int[Tensor, " B"] | None = None,
        *,
        num_codebooks: int | None = None,
    ) -> tuple[Int[Tensor, "B K T"], MimiInfo]:
        """Returns the codes of waveforms at `config.sample_rate`, full scale = 1.

        Args:
            audio: [B, 1, S]; an incomplete last frame is filled with zeros.
            lengths: int64 [B], samples of each item before padding with zeros. None: all S.
            num_codebooks: Codebooks to search, a prefix with the semantic ones. None: all.

        Returns:
            Codes int64 [B, K, T] with T = ceil(S / samples_per_frame), and the number of frames. Mimi is
            causal: codes of an item up to its own frames do not depend on its padding.

        Raises:
            ValueError: `audio` has another shape or dtype, no samples or a value that is not finite, or
                lengths or num_codebooks are out of range.
        """
        config = self.config
        count = config.n_codebooks if num_codebooks is None else num_codebooks
        if not config.semantic_codebooks <= count <= config.n_codebooks:
            raise ValueError(
                f"num_codebooks is {count}: expected {config.semantic_codebooks} to {config.n_codebooks}"
            )
        if self._stream is not None:
            raise ValueError("encode inside streaming: expected decode alone; leave the `with` block first")
        check_audio(audio, self.config)
        lengths = checked_lengths(lengths, audio)
        frame = self.config.samples_per_frame
        padded = nn.functional.pad(audio, (0, -audio.shape[-1] % frame))
        codes = self.model.encode(padded, num_quantizers=count).audio_codes
        none = torch.zeros(len(audio), 0, device=audio.device)
        return codes, MimiInfo((lengths + frame - 1) // frame, none, none)

    @torch.no_grad()
    def decode(
        self,
        codes: Int[Tensor, "B K T"],
        *,
        speaker: Float[Tensor, "B 0"] | None = None,
        emotion: Float[Tensor, "B 0"] | None = None,
        contrast: float | None = None,
    ) -> Float[Tensor, "B 1 S"]:
        """Returns the waveform [B, 1, T * samples_per_frame] of codes.

        Inside `streaming` it continues the signal of the calls before.

        Args:
            codes: int64 [B, K, T]; K may be any prefix that includes the semantic codebooks.
            speaker, emotion: Embeddings of `encode`, of width 0, or None: Mimi's decoder takes none.
            contrast: None: Mimi's decoder has no such setting.

        Raises:
            ValueError: `codes` has another shape or dtype, no frames, a wrong number of codebooks or a code
                out of range; an embedding has a width, or contrast is given.
        """
        config = self.config
        check_codes(codes, config, fewest=config.semantic_codebooks)
        for name, given in (("speaker", speaker), ("emotion", emotion)):
            if given is not None and given.shape[-1]:
                raise ValueError(f"{name} has width {given.shape[-1]}: expected None, Mimi decodes without")
        if contrast is not None:
            raise ValueError(f"contrast is {contrast}: expected None with Mimi; see sampling.json")
        if self._stream is not None:
            return self._stream(self.model.quantizer.decode(codes))
        samples = codes.shape[2] * config.samples_per_frame
        return self.model.decode(codes).audio_values[..., :samples]

    @contextmanager
    def streaming(self, batch_size: int) -> Iterator[None]:
        """Makes successive `decode` calls continue one signal; the chunks add up to the whole.

        Args:
            batch_size: B of every call inside.

        Raises:
            ValueError: The tokenizer is streaming already, batch_size is below 1, or Mimi is not causal.
        """
        from transformers import DynamicCache

        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}: expected at least 1")
        if self._stream is not None:
            raise ValueError(
                "streaming is already entered for this tokenizer: leave the first `with` before the second"
            )
        cache = DynamicCache(config=self.model.decoder.decoder_transformer.config)
        self._stream = MimiDecoderStream(self.model.decoder, cache)
        try:
            yield
        finally:
            self._stream = None

    def flush(self) -> Float[Tensor, "1 1 0"]:
        """Returns no samples: `decode` holds none back."""
        return torch.zeros(1, 1, 0)

    def with_own_state(self) -> MimiTokenizer:
        """Returns a tokenizer with the same weights and a streaming state of its own."""
        return MimiTokenizer(self.model, n_codebooks=self.config.n_codebooks)

    def save_pretrained(self, folder: Path | str, *, half: bool = False) -> None:
        """Writes the folder that transformers and `from_pretrained` read; makes it.

        Args:
            folder: Destination.
            half: Nothing: in half precision the same audio would have other codes.
        """
        self.model.save_pretrained(str(folder))


def _codec_weights(folder: Path) -> dict[str, Tensor]:
    """Returns the weights of the Mimi in a folder of transformers' CSM, under their names there."""
    weights: dict[str, Tensor] = {}
    prefix = "codec_model."
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                if name.startswith(prefix):
                    weights[name[len(prefix) :]] = file.get_tensor(name)
    return weights
