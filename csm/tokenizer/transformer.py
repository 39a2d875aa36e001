"""A small causal transformer at the frame rate: context of a few seconds for every frame."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from csm.tokenizer.config import TokenizerConfig


class AttentionPast(NamedTuple):
    """Keys and values of the last P steps of a stream, P below the window.

    Attributes:
        keys, values: [B, N, P, H].
        padding: bool [B, 1, 1, P], steps that fill up younger streams and are not attended to; None: none.
    """

    keys: Tensor
    values: Tensor
    padding: Tensor | None = None


class WindowAttention(nn.Module):
    """Causal self-attention to the last `window` steps, the present one included.

    Positions enter as a learned bias per head and distance (T5's, without buckets), so that nothing depends
    on the absolute position: a stream may be of any length.

    Args:
        width: Number of channels C.
        n_heads: Number of heads N, a divisor of C.
        window: Steps that are attended to.
    """

    def __init__(self, width: int, n_heads: int, window: int) -> None:
        super().__init__()
        self.n_heads, self.window = n_heads, window
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.distance_bias = nn.Parameter(torch.zeros(n_heads, window))
        self.stream_state: AttentionPast | None = None

    def initial_state(self, batch_size: int) -> AttentionPast:
        """Returns an empty past."""
        none = self.qkv.weight.new_zeros(batch_size, self.n_heads, 0, self.out.in_features // self.n_heads)
        return AttentionPast(none, none)

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Maps [B, T, C] to [B, T, C]; memory grows with T * window, not with T squared."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        past, padding = 0, None
        if self.stream_state is not None:
            past = self.stream_state.keys.shape[2]
            k = torch.cat([self.stream_state.keys.to(k.dtype), k], dim=2)
            v = torch.cat([self.stream_state.values.to(v.dtype), v], dim=2)
            if self.stream_state.padding is not None:
                padding = F.pad(self.stream_state.padding, (0, x.shape[1]))
            kept = max(0, k.shape[2] - self.window + 1)
            self.stream_state = AttentionPast(
                k[:, :, kept:].detach(),
                v[:, :, kept:].detach(),
                None if padding is None else padding[..., kept:],
            )
        parts = []
        for start in range(0, x.shape[1], self.window):
            stop = min(start + self.window, x.shape[1])
            first, last = max(0, past + start - self.window + 1), past + stop
            bias = self._bias(past + start - first, stop - start, last - first)
            scores = q[:, :, start:stop] * q.shape[-1] ** -0.5 @ k[:, :, first:last].transpose(-1, -2) + bias
            if padding is not None:
                scores = scores.masked_fill(padding[..., first:last], float("-inf"))
            parts.append(scores.softmax(-1) @ v[:, :, first:last])
        return self.out(torch.cat(parts, dim=2).transpose(1, 2).flatten(2))

    def _bias(self, first_query: int, queries: int, keys: int) -> Float[Tensor, "N Q J"]:
        """Returns the bias of every distance, -inf on future steps and on steps before the window."""
        position = torch.arange(keys, device=self.distance_bias.device)
        distance = position[:queries].unsqueeze(1) + first_query - position
        seen = (distance >= 0) & (distance < self.window)
        return self.distance_bias[:, distance.clamp(0, self.window - 1)].masked_fill(~seen, float("-inf"))


class TransformerLayer(nn.Module):
    """Pre-norm window attention and a two-layer perceptron, each added through a learned scale.

    Args:
        width, n_heads, window: Sizes of the attention, see WindowAttention.
        expansion: Hidden width of the perceptron, in multiples of `width`.
    """

    def __init__(self, width: int, *, n_heads: int, window: int, expansion: int = 2) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width)
        self.attention = WindowAttention(width, n_heads, window)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, expansion * width)
        self.contract = nn.Linear(expansion * width, width)
        # Small, as in ConvNeXtBlock.
        self.scales = nn.Parameter(torch.full((2, width), 0.1))

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Maps [B, T, C] to [B, T, C]."""
        x = x + self.scales[0] * self.attention(self.attention_norm(x))
        return x + self.scales[1] * self.contract(F.gelu(self.expand(self.norm(x)), approximate="tanh"))


def transformer_layers(config: TokenizerConfig, width: int, count: int) -> list[TransformerLayer]:
    """Returns `count` layers of the config's attention sizes."""
    return [
        TransformerLayer(
            width,
            n_heads=config.attention_heads,
            window=config.attention_frames,
            expansion=config.attention_expansion,
        )
        for _ in range(count)
    ]
