"""Kyutai's Mimi behind the interface of ConversationalRVQ, by Hugging Face's transformers (extra `[hf]`).

Mimi (Defossez et al. 2024, the codec of Moshi) makes 12.5 frames per second of up to 32 codebooks of 2048
from 24 kHz audio, the first one semantic. Its weights are not part of this package: give a folder that holds
them.
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

if TYPE_CHECKING:
    from transformers import MimiModel


@dataclass(frozen=True, kw_only=True)
class MimiTokenizerConfig:
    """What a user of the codes must know, under the names of TokenizerConfig.

    Attributes:
        sample_rate: Hz.
        frame_rate: Frames per second.
        n_codebooks: Codebooks per frame, of which the first `semantic_codebooks` carry what is said.
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
    """What `encode` knows beside the codes.

    Attributes:
        frames: int64 [B], frames of each item before padding.
    """

    frames: Tensor


class MimiTokenizer(nn.Module):
    """Waveforms to codes and back by Mimi, for inference.

    Args:
        model: A MimiModel of transformers, of any size.
        n_codebooks: Codebooks to encode with, a prefix of the model's. None: all of them.

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
            folder: Of a Mimi, or of a CSM that holds one.
            n_codebooks: As the constructor's.

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
            # By transformers' loader, which knows the names that a Mimi has in files.
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
                    f"no whole Mimi in {folder}: its weights and its codec_config differ in {wrong}; copy "
                    f"the folder of CsmForConditionalGeneration anew"
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
        """Codes of waveforms at `config.sample_rate`, full scale = 1.

        Args:
            audio: [B, 1, S]; a last frame that is not full is filled with zeros.
            lengths: int64 [B], samples of each item before padding with zeros. None: all S.

        Returns:
            Codes int64 [B, K, T] with T = ceil(S / samples_per_frame), and what else is known. Mimi is
            causal: codes of an item up to its own frames do not depend on its padding.

        Raises:
            ValueError: On another shape, no samples, a value that is not finite, or lengths out of range.
        """
        if audio.ndim != 3 or audio.shape[1] != 1 or 0 in audio.shape:
            raise ValueError(
                f"audio has shape {tuple(audio.shape)}: expected [B, 1, S] at {self.config.sample_rate} Hz, "
                f"not empty; mix channels down or encode them one by one"
            )
        if not bool(torch.isfinite(audio).all()):
            raise ValueError("audio holds NaN or infinite samples: repair or drop the recording first")
        if lengths is None:
            lengths = torch.full((audio.shape[0],), audio.shape[-1], device=audio.device)
        elif (
            lengths.shape != audio.shape[:1] or int(lengths.min()) < 1 or int(lengths.max()) > audio.shape[-1]
        ):
            raise ValueError(
                f"lengths {lengths.tolist()}: expected one per item of audio {tuple(audio.shape)}, from 1 to "
                f"{audio.shape[-1]} samples"
            )
        frame = self.config.samples_per_frame
        padded = nn.functional.pad(audio, (0, -audio.shape[-1] % frame))
        codes = self.model.encode(padded, num_quantizers=self.config.n_codebooks).audio_codes
        return codes, MimiInfo(frames=(lengths + frame - 1) // frame)

    @torch.no_grad()
    def decode(self, codes: Int[Tensor, "B K T"]) -> Float[Tensor, "B 1 S"]:
        """The waveform [B, 1, T * samples_per_frame] of codes.

        Args:
            codes: int64 [B, K, T]; K may be any prefix of the codebooks that holds one acoustic codebook.

        Raises:
            ValueError: On another shape or dtype, no frames, a wrong number of codebooks or a wrong code.
        """
        config = self.config
        fewest = config.semantic_codebooks + 1
        if codes.ndim != 3 or not fewest <= codes.shape[1] <= config.n_codebooks or 0 in codes.shape:
            raise ValueError(
                f"codes have shape {tuple(codes.shape)}: expected [B, K, T] with {fewest} <= K <= "
                f"{config.n_codebooks} and at least one frame"
            )
        low, high = int(codes.min()), int(codes.max())
        if codes.dtype != torch.int64 or low < 0 or high >= config.codebook_size:
            raise ValueError(
                f"codes are {codes.dtype} over {low}..{high}: expected int64 in 0..{config.codebook_size - 1}"
            )
        samples = codes.shape[2] * config.samples_per_frame
        return self.model.decode(codes).audio_values[..., :samples]


def _codec_weights(folder: Path) -> dict[str, Tensor]:
    """The weights of the Mimi inside a folder of transformers' CSM, as they are named there."""
    weights: dict[str, Tensor] = {}
    prefix = "codec_model."
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            for name in file.keys():
                if name.startswith(prefix):
                    weights[name[len(prefix) :]] = file.get_tensor(name)
    return weights
