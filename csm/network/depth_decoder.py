"""The small transformer over the codebooks inside one frame."""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from csm.network.cross_entropy import linear_cross_entropy
from csm.network.initialise import draw
from csm.network.layers import KeyValueCache, RMSNorm, TransformerBlock, attend_few, attend_grouped
from csm.network.model_config import CSMConfig
from csm.network.rotary import Rotation
from csm.network.running_sum import running_sum

RECOMPUTED_FRAMES = 128  # at a time, where activations are not kept


class FrameAttention:
    """Causal attention among the `steps` rows of each frame; frames lie one after the other."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (t.unflatten(0, (-1, self.steps)).transpose(1, 2) for t in (q, k, v))
        return attend_few(q, k, v, causal=True).transpose(1, 2).flatten(0, 1)


class FrameCaches:
    """Attention of the new rows of each of several frames to all rows so far of its own.

    Args:
        layers: Number of layers that will attend.
        frames: Number of frames F, which get equally many rows at a time.
        capacity: Most rows of a frame.
    """

    def __init__(self, layers: int, frames: int, capacity: int) -> None:
        self.frames, self.capacity, self.length = frames, capacity, 0
        self._kept: list[tuple[Tensor, Tensor] | None] = [None] * layers

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (t.unflatten(0, (self.frames, -1)).transpose(1, 2) for t in (q, k, v))
        kept = self._kept[layer]
        if kept is None:
            shape = (*k.shape[:2], self.capacity, k.shape[3])
            kept = self._kept[layer] = k.new_zeros(shape), v.new_zeros(shape)
        new, end = q.shape[2], self.length + q.shape[2]
        for rows, added in zip(kept, (k, v), strict=True):
            rows[:, :, self.length : end] = added
        mask = None
        if new > 1:
            places = torch.arange(end, device=q.device)
            mask = places <= places[self.length :].unsqueeze(1)
        out = attend_grouped(q, *(rows[:, :, :end] for rows in kept), mask=mask)
        return out.transpose(1, 2).flatten(0, 1)

    def advance(self, rows: int) -> None:
        """To be called once after all layers have seen the new rows of a frame."""
        self.length += rows


class DepthDecoder(nn.Module):
    """Codes 1..K-1 of a frame from the backbone's row and the codes before, as in csm-1b.

    Position 0 reads the backbone's hidden row, position k the embedding of code k - 1 of the frame; the
    output at position i gives code i through its own head. Residual codes add up: with `cumulative`, position
    k reads the hidden row and the embeddings of all codes before k, added up, so that what is still missing
    is one linear map away.

    Args:
        config: Sizes of the model.
    """

    def __init__(self, config: CSMConfig) -> None:
        super().__init__()
        _, shape = config.shapes
        self.num_codebooks, self.cumulative = config.num_codebooks, config.depth_inputs == "sum"
        self.projection = nn.Linear(config.d_model, shape.width, bias=False)
        self.blocks = nn.ModuleList(
            TransformerBlock(
                shape, base=config.rope_base, scaling=config.rope_scaling, dropout=config.dropout
            )
            for _ in range(shape.layers)
        )
        self.norm = RMSNorm(shape.width)
        heads = torch.randn(config.num_codebooks - 1, shape.width, config.audio_vocab_size)
        self.heads = nn.Parameter(heads * shape.width**-0.5)

    def reset_parameters(self, branch_std: float) -> None:
        """Draws the initial weights; the heads keep those of `__init__`."""
        draw(self.projection)
        for block in self.blocks:
            cast(TransformerBlock, block).reset_parameters(branch_std)

    def forward(
        self,
        hidden: Float[Tensor, "F D"],
        code_embeddings: Float[Tensor, "F K1 D"],
        targets: Int[Tensor, "F K1"] | None = None,
        label_smoothing: float = 0.0,
        some_ignored: bool = False,
        float8: bool = False,
    ) -> Float[Tensor, "F K1 V"] | Float[Tensor, " K1"]:
        """Logits of codes 1..K-1 of F frames (F may be 0); with targets, cross-entropies summed over frames.

        Args:
            hidden: [F, D], of the backbone's row before each frame.
            code_embeddings: [F, K - 1, D], embeddings of codes 0..K-2 of the frame.
            targets: Codes 1..K-1; the options of `linear_cross_entropy` go with them.
        """
        read = torch.cat([hidden.unsqueeze(1), code_embeddings], dim=1)
        x = self.projection(running_sum(read, 1) if self.cumulative else read)
        # Frames do not attend to each other: chunks of them bound the memory of the recomputed activations.
        parts = x.split(RECOMPUTED_FRAMES) if self.blocks[0].checkpointed and len(x) else [x]
        x = torch.cat([self._frames(part) for part in parts])
        rows = self.norm(x)[:, 1:].transpose(0, 1)
        if targets is not None:
            options = label_smoothing, some_ignored, float8
            return linear_cross_entropy(rows, self.heads, targets.T, *options)
        return torch.bmm(rows, self.heads.to(rows.dtype)).transpose(0, 1)

    def _frames(self, x: Float[Tensor, "F K W"]) -> Float[Tensor, "F K W"]:
        frames, steps = x.shape[:2]
        to = self._rotation(torch.arange(steps, device=x.device).repeat(frames))
        attend = FrameAttention(steps)
        rows = x.flatten(0, 1)
        for index, block in enumerate(self.blocks):
            rows = block(rows, to, attend, index)
        return rows.unflatten(0, (frames, steps))

    def _rotation(self, positions: Tensor) -> Rotation:
        return cast(TransformerBlock, self.blocks[0]).rotation(positions)

    def start(self) -> KeyValueCache:
        """An empty cache for one frame."""
        return KeyValueCache(len(self.blocks), self.num_codebooks)

    def step(self, x: Float[Tensor, "R D"], cache: KeyValueCache) -> Float[Tensor, "R W"]:
        """The next rows of one frame: the backbone's row and code 0 first, then one code at a time.

        Args:
            x: [R, D], rows of the backbone's width; sums of them already where positions read sums.
            cache: Of `start`; it is advanced.
        """
        x = self.projection(x)
        to = self._rotation(torch.arange(cache.length, cache.length + len(x), device=x.device))
        for index, block in enumerate(self.blocks):
            x = block(x, to, cache, index)
        cache.advance(len(x))
        return self.norm(x)

    def start_frames(self, count: int) -> FrameCaches:
        """Empty caches for several frames."""
        return FrameCaches(len(self.blocks), count, self.num_codebooks)

    def step_frames(self, x: Float[Tensor, "F R D"], caches: FrameCaches) -> Float[Tensor, "F R W"]:
        """The next rows of several frames, each as `step` computes those of one.

        Args:
            x: R rows of each frame.
            caches: Of `start_frames`; they are advanced.
        """
        frames, new = x.shape[:2]
        places = torch.arange(caches.length, caches.length + new, device=x.device)
        rows, to = self.projection(x).flatten(0, 1), self._rotation(places.repeat(frames))
        for index, block in enumerate(self.blocks):
            rows = block(rows, to, caches, index)
        caches.advance(new)
        return self.norm(rows).unflatten(0, (frames, new))

    def logits(self, row: Float[Tensor, "*F W"], codebook: Int[Tensor, ""] | int) -> Float[Tensor, "*F V"]:
        """Logits of code `codebook` (1..K-1) from the rows at its position."""
        return row @ self.heads[int(codebook) - 1].to(row.dtype)
