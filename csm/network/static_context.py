"""The contexts of several conversations at fixed addresses, for steps of one row of each.

Nothing here has a shape that depends on the conversations: a step computes with positions and lengths that
are tensors, so that a CUDA graph of it serves all rows of all turns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from csm.network.backbone import Backbone
from csm.network.cross_attention import CrossAttention
from csm.network.layers import KeyValueCache, TransformerBlock, attend_few
from csm.network.rotary import Rotation
from csm.network.voice_reading import VoiceReading, key_at

# Rows of a mask that SDPA's kernels on CUDA read without a copy.
ALIGNMENT = 8


class StaticCaches:
    """Keys and values of the rows of B conversations.

    The last row is spare: a conversation whose row counts for nothing in a step has it written there.

    Args:
        backbone: Transformer whose layers attend.
        count: B.
        capacity: Most rows of a conversation.
        like: Gives the dtype and device.
    """

    def __init__(self, backbone: Backbone, count: int, capacity: int, like: Tensor) -> None:
        attention = cast(TransformerBlock, backbone.blocks[0]).attention
        rows = (capacity // ALIGNMENT + 1) * ALIGNMENT
        self.spare = rows - 1
        shape = (count, rows, attention.n_kv_heads, attention.head_dim)
        # [B, rows, M, H] for each layer.
        self.keys = [like.new_zeros(shape) for _ in backbone.blocks]
        self.values = [like.new_zeros(shape) for _ in backbone.blocks]

    def load(self, index: int, cache: KeyValueCache) -> None:
        """Copies the rows of a conversation to place `index`."""
        for layer, kept in enumerate(zip(self.keys, self.values, strict=True)):
            for mine, theirs in zip(kept, cache.rows_from(layer), strict=True):
                # Rows that are masked count 0 times their values, which must be numbers.
                mine[index].zero_()[: cache.length] = theirs.transpose(0, 1)

    def store(self, index: int, cache: KeyValueCache, first: int) -> None:
        """Copies the rows of place `index` from `first` on to their conversation."""
        for layer, kept in enumerate(zip(self.keys, self.values, strict=True)):
            for mine, theirs in zip(kept, cache.rows_from(layer, first), strict=True):
                theirs.copy_(mine[index, first : cache.length].transpose(0, 1))

    def attention(self, positions: Int[Tensor, " B"]) -> StaticAttention:
        """Returns the attention of one new row of each conversation, at these positions."""
        return StaticAttention(self, positions)


class StaticAttention:
    """Attention of one new row of each conversation to all rows so far of its own.

    It forms the scores of all rows that a cache can hold and masks those beyond the position.
    """

    def __init__(self, caches: StaticCaches, positions: Int[Tensor, " B"]) -> None:
        count, rows = caches.keys[0].shape[:2]
        each = torch.arange(count * rows, device=positions.device).view(count, rows)
        self._caches, self._new = caches, each[:, 0] + positions
        beyond = each > self._new.unsqueeze(1)
        seen = caches.keys[0].new_zeros(count, 1, 1, rows)
        self._mask = seen.masked_fill(beyond[:, None, None], -torch.inf)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self._caches.keys[layer], self._caches.values[layer]
        for kept, new in ((keys, k), (values, v)):
            kept.flatten(0, 1).index_copy_(0, self._new, new)
        # The heads of a group are queries of one head of keys: none is repeated.
        grouped = q.unflatten(1, (k.shape[1], -1))
        out = F.scaled_dot_product_attention(
            grouped, keys.transpose(1, 2), values.transpose(1, 2), attn_mask=self._mask
        )
        return out.flatten(1, 2)

    def pad(self, x: Tensor) -> Tensor:
        """[B, ...] -> [B, 1, ...]."""
        return x.unsqueeze(1)

    def unpad(self, x: Tensor) -> Tensor:
        """[B, 1, ...] -> [B, ...]."""
        return x[:, 0]


class StaticTexts:
    """What the voice rows of B turns read: text before and inside the cross-attention layers.

    Args:
        layers: Cross-attention layers of voice rows, at least one.
        count: B.
        capacity: Most keys of a turn.
        window: Frames to each side that a voice row sees.
        like: Embeddings [_, D]; give the width, the dtype and the device.
    """

    def __init__(
        self, layers: Sequence[CrossAttention], count: int, capacity: int, window: int, like: Tensor
    ) -> None:
        self.layers, self.window, self.capacity = layers, window, capacity
        width, heads = like.shape[1], layers[0].n_heads
        shape = (count * capacity, heads, width // heads)
        self.keys = [like.new_zeros(shape) for _ in layers]
        self.values = [like.new_zeros(shape) for _ in layers]
        self.frame_text = like.new_zeros(count * capacity, width)
        # Keys of each turn, and the frames that they are stretched over.
        self.counts = torch.ones(count, dtype=torch.int64, device=like.device)
        self.lengths = torch.ones_like(self.counts)

    def load(self, index: int, reading: VoiceReading, length: int) -> None:
        """Copies what a turn, stretched over `length` frames, reads to place `index`."""
        count, first = len(reading.frame_text), index * self.capacity
        kept = (self.frame_text, *self.keys, *self.values)
        for mine, theirs in zip(kept, (reading.frame_text, *reading.keys, *reading.values), strict=True):
            mine[first : first + count] = theirs
        self.counts[index], self.lengths[index] = count, length

    def reading(self, places: Int[Tensor, " B"]) -> StaticReading:
        """Returns the reading of one row of each turn: the one that predicts frame `places`.

        The same as `VoiceReading.step` and `VoiceReading.concat` of the turns.
        """
        first = torch.arange(len(places), device=places.device) * self.capacity
        # Beyond the window's reach of the text, a row keeps reading the last ids.
        seen = torch.minimum(places, self.lengths - 1 + self.window)
        clock = torch.minimum(places, self.lengths).float()
        resampled = seen.unsqueeze(1) + torch.arange(-self.window, self.window + 1, device=places.device)
        left, right, weight = between_keys(resampled, self.lengths.unsqueeze(1), self.counts.unsqueeze(1))
        return StaticReading(
            queries=torch.arange(len(places), device=places.device),
            query_positions=clock,
            rotation=self.layers[0].rotation(clock),
            frame_text=self.frame_text,
            key_of_query=first + key_at(seen, self.lengths, self.counts),
            texts=self,
            left=first.unsqueeze(1) + left,
            right=first.unsqueeze(1) + right,
            weight=weight[..., None, None],
            seen=((resampled >= 0) & (resampled < self.lengths.unsqueeze(1)))[:, None, None],
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class StaticReading:
    """One row of each of B turns and the text in its window.

    Attributes:
        queries, query_positions, rotation: As of Reading.
        frame_text, key_of_query: As of VoiceReading.
        texts: Keys and values.
        left, right: int64 [B, W], keys on both sides of each resampled one of the window.
        weight: float32 [B, W, 1, 1], share of the right one.
        seen: bool [B, 1, 1, W], which resampled keys there are.
    """

    queries: Tensor
    query_positions: Tensor
    rotation: Rotation
    frame_text: Tensor
    key_of_query: Tensor
    texts: StaticTexts
    left: Tensor
    right: Tensor
    weight: Tensor
    seen: Tensor

    def attend(self, q: Float[Tensor, "B N H"], layer: int) -> Float[Tensor, "B N H"]:
        """Returns what the rows take from the values of one cross-attention layer, in fp32."""
        keys, values = (self._resampled(kept[layer]) for kept in (self.texts.keys, self.texts.values))
        return attend_few(q.float().unsqueeze(2), keys, values, mask=self.seen)[:, :, 0]

    def _resampled(self, kept: Float[Tensor, "M N H"]) -> Float[Tensor, "B N W H"]:
        left, right = (kept[keys].float() for keys in (self.left, self.right))
        return torch.lerp(left, right, self.weight).transpose(1, 2)


def between_keys(
    places: Int[Tensor, "B W"], lengths: Int[Tensor, "B 1"], counts: Int[Tensor, "B 1"]
) -> tuple[Int[Tensor, "B W"], Int[Tensor, "B W"], Float[Tensor, "B W"]]:
    """Returns the keys on both sides of places among `counts` keys stretched to `lengths`, and weights.

    F.interpolate's rule in whole numbers, as `interpolated_attention` computes it. Places beyond the ends are
    those of the ends.

    Returns:
        The left key, the right key, and the share of the right one, float32.
    """
    scale = 2 * lengths
    inside = torch.minimum(places.clamp_min(0), lengths - 1)
    exact = torch.minimum(((2 * inside + 1) * counts - lengths).clamp_min(0), (counts - 1) * scale)
    left, rest = exact // scale, exact % scale
    return left, torch.minimum(left + 1, counts - 1), rest.float() / scale
