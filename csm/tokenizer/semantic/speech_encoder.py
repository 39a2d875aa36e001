"""A speech recogniser's encoder, made causal in blocks, so that its features can be computed from a stream.

Architecture and weights are those of Whisper's encoder (Radford et al. 2022): two convolutions over log-mel
features, then pre-norm transformer layers at 50 steps a second. Two things differ. The convolutions are
shifted so that they see no later feature than the step's own. Attention sees a limited past and the step's
own block of frames; inside a block it is bidirectional.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from csm.tokenizer.semantic.log_mel import BANDS

#: Encoder steps in a codec frame of 80 ms.
STEPS_PER_FRAME = 4


@dataclass(frozen=True, kw_only=True)
class SpeechEncoderConfig:
    """Sizes of a SpeechEncoder; the defaults are those of Whisper tiny.

    Attributes:
        width: Channels D.
        n_layers, n_heads: Transformer layers and heads of each.
        positions: Rows of the table of positions, which is used again from its start after the last.
        block_frames: Codec frames in a block of bidirectional attention; a block of n frames looks ahead by
            up to n - 1 frames.
        past_frames: Codec frames before a block that it attends to.

    Raises:
        ValueError: A count below 1, or a width that the heads do not divide.
    """

    width: int = 384
    n_layers: int = 4
    n_heads: int = 6
    positions: int = 1500
    block_frames: int = 1
    past_frames: int = 64

    def __post_init__(self) -> None:
        for name in ("width", "n_layers", "n_heads", "positions", "block_frames", "past_frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected at least 1")
        if self.width % self.n_heads or self.width % 2:
            raise ValueError(f"width is {self.width}: expected an even multiple of n_heads {self.n_heads}")


class SpeechEncoder(nn.Module):
    """Log-mel features [B, 2T, 80] to features [B, T, D] at 50 steps a second.

    Args:
        config: Sizes.
    """

    positions: Tensor

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = CausalConv(BANDS, config.width, stride=1)
        self.conv2 = CausalConv(config.width, config.width, stride=2)
        self.register_buffer("positions", sinusoids(config.positions, config.width), persistent=False)
        self.layers = nn.ModuleList(BlockCausalLayer(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.width)
        self.stream_state: int | None = None

    def initial_state(self, batch_size: int) -> int:
        """Returns the position of the first step."""
        return 0

    def forward(self, features: Float[Tensor, "B M 80"], first: int = 0) -> Float[Tensor, "B T D"]:
        """Returns [B, T, D] of features [B, 2T, 80].

        Inside `streaming` each call continues the signal and holds whole blocks.

        Args:
            features: Log-mel features.
            first: Position of the first step outside `streaming`; training draws it, so that the table's
                end is trained like its middle.

        Raises:
            ValueError: Features of half a step, or inside `streaming` of half a block.
        """
        steps = features.shape[1] // 2
        block = self.config.block_frames * STEPS_PER_FRAME
        if features.shape[1] % 2 or (self.stream_state is not None and steps % block):
            raise ValueError(
                f"features have {features.shape[1]} steps of 10 ms: expected a multiple of "
                f"{2 if self.stream_state is None else 2 * block}"
            )
        x = F.gelu(self.conv2(F.gelu(self.conv1(features))))
        start = first if self.stream_state is None else self.stream_state
        places = torch.arange(start, start + steps, device=x.device) % self.config.positions
        x = x + self.positions[places].to(x.dtype)
        for layer in self.layers:
            x = layer(x)
        if self.stream_state is not None:
            self.stream_state += steps
        out: Tensor = self.norm(x)
        return out


class CausalConv(nn.Module):
    """A convolution of width 3 whose output step t sees inputs up to step (t + 1) * stride - 1 alone."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, width, 3, stride=stride)
        self.past = 3 - stride
        self.stream_state: Tensor | None = None

    def initial_state(self, batch_size: int) -> Tensor:
        """Returns the zeros before the signal."""
        return self.conv.weight.new_zeros(batch_size, self.past, self.conv.in_channels)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T2 D"]:
        """Returns [B, T / stride, D]."""
        if self.stream_state is None:
            padded = F.pad(x, (0, 0, self.past, 0))
        else:
            padded = torch.cat([self.stream_state.to(x.dtype), x], dim=1)
            self.stream_state = padded[:, padded.shape[1] - self.past :].detach()
        out: Tensor = self.conv(padded.transpose(1, 2)).transpose(1, 2)
        return out


class BlockCausalLayer(nn.Module):
    """A pre-norm transformer layer whose attention sees a limited past and its own block."""

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.n_heads = config.n_heads
        self.block = config.block_frames * STEPS_PER_FRAME
        self.past = config.past_frames * STEPS_PER_FRAME
        # Queries of one product with their keys: whole blocks, at least as many steps as the past.
        self.part = -(-self.past // self.block) * self.block
        width = config.width
        self.attention_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.stream_state: tuple[Tensor, Tensor] | None = None

    def initial_state(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """Returns keys and values of the past: none yet."""
        empty = self.out.weight.new_zeros(batch_size, 0, self.out.in_features)
        return empty, empty

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        """Returns [B, T, D]."""
        x = x + self.out(self._attend(self.attention_norm(x)))
        out: Tensor = x + self.down(F.gelu(self.up(self.feed_forward_norm(x))))
        return out

    def _attend(self, x: Tensor) -> Tensor:
        queries, keys, values = self.qkv(x).chunk(3, dim=-1)
        if self.stream_state is not None:
            keys, values = (
                torch.cat([old, new], dim=1)
                for old, new in zip(self.stream_state, (keys, values), strict=True)
            )
            kept = max(0, keys.shape[1] - self.past)
            self.stream_state = keys[:, kept:].detach(), values[:, kept:].detach()
        q, k, v = (part.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for part in (queries, keys, values))
        before = keys.shape[1] - queries.shape[1]
        attended = []
        # Parts of the queries with the keys that they see: the cost of an hour is linear in its length.
        for first in range(0, q.shape[2], self.part):
            last = min(first + self.part, q.shape[2])
            seen = slice(max(0, before + first - self.past), before + last)
            mask = self.visible(last - first, seen.stop - seen.start, x.device)
            attended.append(
                F.scaled_dot_product_attention(
                    q[:, :, first:last], k[:, :, seen], v[:, :, seen], attn_mask=mask
                )
            )
        return torch.cat(attended, dim=2).transpose(1, 2).flatten(2)

    def visible(self, queries: int, keys: int, device: torch.device) -> Bool[Tensor, "Q M"]:
        """Returns which keys each query sees; the queries are the last keys, and blocks begin with them."""
        places = torch.arange(keys, device=device) - (keys - queries)
        own = places[keys - queries :].unsqueeze(1)
        block = own - own % self.block
        return (places < block + self.block) & (places >= block - self.past)


def sinusoids(rows: int, width: int) -> Float[Tensor, "N D"]:
    """Returns Whisper's table of positions: sines, then cosines, of wavelengths from 2 pi to 20,000 pi."""
    half = width // 2
    rates = torch.exp(-torch.arange(half, dtype=torch.float64) * (math.log(10_000) / (half - 1)))
    angles = torch.arange(rows, dtype=torch.float64).unsqueeze(1) * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def whisper_state(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns the state dict of a SpeechEncoder from the encoder variables of a CTranslate2 file.

    Raises:
        ValueError: A variable is missing.
    """
    pairs = {"norm": "layer_norm", "conv1.conv": "conv1", "conv2.conv": "conv2"}
    count = 0
    while f"layer_{count}/self_attention/linear_0/weight" in weights:
        here, there = f"layers.{count}", f"layer_{count}"
        pairs |= {
            f"{here}.attention_norm": f"{there}/self_attention/layer_norm",
            f"{here}.qkv": f"{there}/self_attention/linear_0",
            f"{here}.out": f"{there}/self_attention/linear_1",
            f"{here}.feed_forward_norm": f"{there}/ffn/layer_norm",
            f"{here}.up": f"{there}/ffn/linear_0",
            f"{here}.down": f"{there}/ffn/linear_1",
        }
        count += 1
    state = {}
    for ours, theirs in pairs.items():
        kinds = ("gamma", "beta") if theirs.endswith("layer_norm") else ("weight", "bias")
        for part, kind in zip(("weight", "bias"), kinds, strict=True):
            if f"{theirs}/{kind}" not in weights:
                raise ValueError(f"no encoder variable {theirs}/{kind}: expected a Whisper model")
            state[f"{ours}.{part}"] = weights[f"{theirs}/{kind}"].float()
    return state
