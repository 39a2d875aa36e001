"""A self-supervised speech model as the teacher of the semantic codebooks (extra `[hf]`).

SpeechTokenizer (Zhang et al. 2023) taught the first codebook to give HuBERT's features, the average of all
its layers; Mimi (Defossez et al. 2024) takes WavLM and the cosine. Such features separate phones and hardly
the voices that speak them. The teacher is read from a local folder, stays as it is and is saved nowhere.
"""

from __future__ import annotations

import importlib.util
import json
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn

from csm.audio.resampling import resample
from csm.system.extras import missing_package

if TYPE_CHECKING:
    from transformers import HubertModel, Wav2Vec2Model, WavLMModel

# Read from waveforms by the same stack of convolutions, so that their steps lie at the same places.
MODEL_TYPES = ("wavlm", "hubert", "wav2vec2")


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """Which of the teacher's layers are averaged.

    Attributes:
        first_layer: First of the teacher's layers that are averaged; 0: the input of its first transformer
            layer, whose output is layer 1.
        last_layer: Last of the teacher's layers that are averaged, included; -1: the teacher's last layer.
    """

    first_layer: int = 0
    last_layer: int = -1

    def __post_init__(self) -> None:
        if self.first_layer < 0 or (self.last_layer != -1 and self.last_layer < self.first_layer):
            raise ValueError(
                f"first_layer={self.first_layer}, last_layer={self.last_layer}: expected 0 <= first_layer <= "
                f"last_layer, or last_layer=-1 for the last"
            )


class TeacherFrames(NamedTuple):
    """What the teacher says of a batch.

    Attributes:
        features: [B, T, C], 0 where it says nothing.
        known: bool [B, T], frames that hold at least one of its steps.
    """

    features: Tensor
    known: Tensor


def require_teacher(folder: Path | str) -> None:
    """Looks at a folder without loading anything.

    Raises:
        ValueError: Transformers is not installed, or the folder holds no WavLM, HuBERT or wav2vec2.
    """
    if importlib.util.find_spec("transformers") is None:
        raise ValueError(missing_package("transformers", f"teacher {folder}"))
    config = Path(folder) / "config.json"
    if not config.is_file() or not [*Path(folder).glob("*.safetensors"), *Path(folder).glob("*.bin")]:
        raise ValueError(
            f"no teacher in {folder}: expected a folder with config.json and model.safetensors or "
            f"pytorch_model.bin, as transformers saves a WavLM, HuBERT or wav2vec2"
        )
    kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    if kind not in MODEL_TYPES:
        raise ValueError(f"the teacher in {folder} is a {kind!r}: expected one of {', '.join(MODEL_TYPES)}")


class Teacher(nn.Module):
    """Features of a frozen speech model at the tokenizer's frames.

    Args:
        model: Of transformers; made fp32, frozen and put into eval mode.
        sample_rate: Hz of the waveforms it is given.
        frame_rate: Frames per second it is asked for.
        config: Which layers.
        model_rate: Hz that the model reads.
        normalise: Whether the model reads clips of mean 0 and variance 1.

    Raises:
        ValueError: The model has no such layers.
    """

    def __init__(
        self,
        model: WavLMModel | HubertModel | Wav2Vec2Model,
        *,
        sample_rate: int,
        frame_rate: float,
        config: TeacherConfig | None = None,
        model_rate: int = 16_000,
        normalise: bool = True,
    ) -> None:
        super().__init__()
        config = config or TeacherConfig()
        layers = int(model.config.num_hidden_layers)
        last = layers if config.last_layer == -1 else config.last_layer
        if not config.first_layer <= last <= layers:
            raise ValueError(
                f"first_layer={config.first_layer}, last_layer={config.last_layer}: expected layers from 0 "
                f"to {layers} of this teacher"
            )
        # Any: transformers' declarations hold none of the parts used here.
        self.model: Any = model.float().eval().requires_grad_(False)
        self.layers = slice(config.first_layer, last + 1)
        self.width = int(model.config.hidden_size)
        self.sample_rate, self.frame_rate = sample_rate, frame_rate
        self.model_rate, self.normalise = model_rate, normalise
        kernels, strides = list(model.config.conv_kernel), list(model.config.conv_stride)
        # A step reads `field` samples and comes every `stride`: 25 ms and 20 ms of all three.
        self.stride = math.prod(strides)
        self.field = 1 + sum((k - 1) * math.prod(strides[:i]) for i, k in enumerate(kernels))
        self.first_kernel, self.first_stride = kernels[0], strides[0]
        self.clip_norm: ClipNorm | None = None
        first = self.model.feature_extractor.conv_layers[0]
        if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
            first.layer_norm = self.clip_norm = ClipNorm(first.layer_norm)

    @classmethod
    def from_pretrained(
        cls,
        folder: Path | str,
        *,
        sample_rate: int,
        frame_rate: float,
        config: TeacherConfig | None = None,
    ) -> Teacher:
        """Reads a local folder of transformers; downloads nothing.

        Args:
            folder: With config.json, weights and, where there is one, preprocessor_config.json.
            sample_rate, frame_rate, config: As the constructor's.

        Raises:
            ValueError: As `require_teacher`, or the weights are damaged or not whole.
        """
        require_teacher(folder)
        from transformers import AutoModel

        # WavLM's attention is given a mask of booleans and a bias of floats.
        warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask")
        # A training starts at the same weights with and without a teacher.
        with torch.random.fork_rng(devices=[]):
            try:
                loaded: Any = AutoModel.from_pretrained(
                    str(folder), local_files_only=True, output_loading_info=True
                )
            except (OSError, RuntimeError, SafetensorError) as error:
                raise ValueError(f"the teacher in {folder} cannot be read: {error}") from error
        model, found = loaded
        # Of the masks of its own training; files of fine-tuned models may lack it.
        missing = sorted(set(found["missing_keys"]) - {"masked_spec_embed"})
        if missing:
            raise ValueError(
                f"the teacher in {folder} lacks {len(missing)} weights, {missing[0]} among them: copy the "
                f"folder again"
            )
        path = Path(folder) / "preprocessor_config.json"
        # The defaults are those of transformers' Wav2Vec2FeatureExtractor, which all three share.
        prepared = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return cls(
            model,
            sample_rate=sample_rate,
            frame_rate=frame_rate,
            config=config,
            model_rate=int(prepared.get("sampling_rate", 16_000)),
            normalise=bool(prepared.get("do_normalize", True)),
        )

    @torch.no_grad()
    def forward(self, audio: Float[Tensor, "B 1 S"], lengths: Int[Tensor, " B"]) -> TeacherFrames:
        """What a student should say of each frame; a clip's padding changes none of its features.

        Args:
            audio: [B, 1, S] at `sample_rate`, full scale = 1, zeros beyond each clip.
            lengths: int64 [B], samples of each clip, at least 1.

        Returns:
            The mean of the chosen layers over the steps whose middle lies in a frame (four at 12.5 Hz), for
            T = ceil(S * frame_rate / sample_rate) frames.
        """
        values, samples = self._clips(audio[:, 0], lengths)
        if self.clip_norm is not None:
            self.clip_norm.steps = (samples - self.first_kernel) // self.first_stride + 1
        mask = _inside(values.shape[1], samples)
        hidden = self.model(values, attention_mask=mask.long(), output_hidden_states=True).hidden_states
        assert len(hidden) == self.model.config.num_hidden_layers + 1, len(hidden)
        # In fp32 whatever the autocast: an average is no place to lose digits.
        with torch.autocast(values.device.type, enabled=False):
            mean = torch.stack([layer.to(values.dtype) for layer in hidden[self.layers]]).mean(dim=0)
            frames = math.ceil(audio.shape[-1] * self.frame_rate / self.sample_rate)
            return self._at_frames(mean, (samples - self.field) // self.stride + 1, frames)

    def _clips(self, waveforms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms [B, S2] as the model reads them, zeros beyond `samples` [B], at least one step long."""
        values = waveforms
        if self.sample_rate != self.model_rate:
            clips = (resample(row, self.sample_rate, self.model_rate) for row in waveforms.float().cpu())
            values = torch.stack([*clips]).to(waveforms)
        values = nn.functional.pad(values, (0, max(0, self.field - values.shape[1])))
        samples = -(-lengths * self.model_rate // self.sample_rate)
        inside = _inside(values.shape[1], samples).to(values.dtype)
        values = values * inside
        if self.normalise:
            count = samples.unsqueeze(1)
            values = (values - values.sum(dim=1, keepdim=True) / count) * inside
            # 1e-7 as transformers' feature extractor has it.
            values = values * (values.square().sum(dim=1, keepdim=True) / count + 1e-7).rsqrt()
        return values, samples.clamp_min(self.field)

    def _at_frames(self, hidden: Tensor, steps: Tensor, frames: int) -> TeacherFrames:
        """Means [B, T, C] of the first `steps` [B] of hidden [B, n, C] over frames."""
        indices = torch.arange(hidden.shape[1], device=hidden.device, dtype=torch.float64)
        middle = (indices * self.stride + (self.field - 1) / 2) / self.model_rate
        place = (middle * self.frame_rate).long()
        # A matrix instead of an indexed sum, whose order of addition CUDA leaves open.
        member = (torch.arange(frames, device=hidden.device).unsqueeze(1) == place).to(hidden.dtype)
        present = _inside(hidden.shape[1], steps).to(hidden.dtype)
        count = present @ member.T
        features = member @ (hidden * present.unsqueeze(-1)) / count.clamp_min(1).unsqueeze(-1)
        return TeacherFrames(features, count > 0)


class ClipNorm(nn.Module):
    """A GroupNorm of one channel a group that takes mean and variance over each clip's own steps.

    The base sizes of all three models normalise their first convolution over time. transformers counts the
    padding in, so that a clip's features would depend on the longest clip beside it.

    Args:
        norm: The one to stand in for.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        assert norm.num_groups == norm.num_channels, "each channel is its own group"
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.steps: Tensor | None = None

    def forward(self, hidden: Float[Tensor, "B C N"]) -> Float[Tensor, "B C N"]:
        """Normalises [B, C, N], of which the first `steps` [B] count; in fp32 at least."""
        assert self.steps is not None, "the teacher sets it before each call"
        inside = _inside(hidden.shape[2], self.steps).unsqueeze(1)
        count = self.steps.reshape(-1, 1, 1)
        # In place: at full rate these are the largest tensors of all.
        hidden = hidden.to(torch.promote_types(hidden.dtype, torch.float32)) * inside
        hidden = hidden.sub_(hidden.sum(dim=2, keepdim=True) / count).mul_(inside)
        variance = torch.linalg.vector_norm(hidden, dim=2, keepdim=True).square() / count
        hidden = hidden.mul_((variance + self.eps).rsqrt())
        return hidden.mul_(self.weight.unsqueeze(1)).add_(self.bias.unsqueeze(1))


def _inside(size: int, lengths: Int[Tensor, " B"]) -> Bool[Tensor, "B N"]:
    """True at the first `lengths` of `size` places."""
    return torch.arange(size, device=lengths.device) < lengths.unsqueeze(1)
