"""Kyutai's Mimi with the interface of ConversationalRVQ, by Hugging Face's transformers (extra `[hf]`).

Mimi (Defossez et al. 2024, the codec of Moshi) encodes 24 kHz audio to 12.5 frames per second of up to 32
codebooks of 2048 vectors, the first one semantic. Its weights are not part of this package: they are read
from a folder.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from safetensors import safe_open
from torch import Tensor, nn

from csm.system.extras import missing_package
from csm.tokenizer.input_checks import check_audio, check_codes, checked_lengths

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
    """

    frames: Tensor


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
        self, audio: Float[Tensor, "B 1 S"], lengths: Int[Tensor, " B"] | None = None
    ) -> tuple[Int[Tensor, "B K T"], MimiInfo]:
        """Returns the codes of waveforms at `config.sample_rate`, full scale = 1.

        Args:
            audio: [B, 1, S]; an incomplete last frame is filled with zeros.
            lengths: int64 [B], samples of each item before padding with zeros. None: all S.

        Returns:
            Codes int64 [B, K, T] with T = ceil(S / samples_per_frame), and the number of frames. Mimi is
            causal: codes of an item up to its own frames do not depend on its padding.

        Raises:
            ValueError: `audio` has another shape or dtype, no samples or a value that is not finite, or
                lengths are out of range.
        """
        check_audio(audio, self.config)
        lengths = checked_lengths(lengths, audio)
        frame = self.config.samples_per_frame
        padded = nn.functional.pad(audio, (0, -audio.shape[-1] % frame))
        codes = self.model.encode(padded, num_quantizers=self.config.n_codebooks).audio_codes
        return codes, MimiInfo(frames=(lengths + frame - 1) // frame)

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "B 1 S"]:
        """Returns the waveform [B, 1, T * samples_per_frame] of codes.

        Args:
            codes: int64 [B, K, T]; K may be any prefix that includes one acoustic codebook.

        Raises:
            ValueError: `codes` has another shape or dtype, no frames, a wrong number of codebooks or a code
                out of range.
        """
        config = self.config
        check_codes(codes, config, fewest=config.semantic_codebooks + 1)
        samples = codes.shape[2] * config.samples_per_frame
        return self.model.decode(codes).audio_values[..., :samples]


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
