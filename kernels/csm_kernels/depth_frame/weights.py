"""Inputs of depth_frame: a depth decoder's tensors, the model's own in fp32 or an int8 copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from csm_kernels.int8_rows import Int8Rows

MATRICES = ("q", "k", "v", "o", "gate", "up", "down")


class DepthLayer(NamedTuple):
    """Weights of one layer with N heads and M key-value heads of width H; matrices are [out, in].

    Attributes:
        attention_norm, feed_forward_norm: Weights of the RMSNorms, [W].
        q: Query projection, [N H, W].
        k, v: Key and value projections, [M H, W].
        o: Output projection of the attention, [W, N H].
        gate, up: Input projections of the SwiGLU, [F, W].
        down: Output projection of the SwiGLU, [W, F].
    """

    attention_norm: Tensor
    q: Tensor | Int8Rows
    k: Tensor | Int8Rows
    v: Tensor | Int8Rows
    o: Tensor | Int8Rows
    feed_forward_norm: Tensor
    gate: Tensor | Int8Rows
    up: Tensor | Int8Rows
    down: Tensor | Int8Rows


@dataclass(frozen=True, kw_only=True)
class DepthWeights:
    """Weights of a depth decoder of K codebooks. fp32 weights are the model's own tensors, not copies.

    A change of them in place therefore counts from the next frame on. `int8()` makes a copy, whose originals
    `is_current` checks for changes.

    Attributes:
        table: Embeddings of the codes, fp32 [K V, D]; row = code + codebook * V.
        projection: Map from the backbone's width to the decoder's, [W, D].
        layers: Weights of each layer.
        norm: Weight of the final RMSNorm, [W].
        heads: Output matrices, [K - 1, W, V]; in int8 [K - 1, V, W].
        cos, sin: Cosine and sine of the rotary angle of every position and pair of channels, fp32 [K, H / 2].
        n_heads, n_kv_heads: Number of attention heads, and of key-value heads that they share.
        eps: Epsilon of every RMSNorm.
        cumulative: Whether position k reads the sum of the backbone's row and the embeddings of all codes
            before k, instead of the last embedding alone.
        originals: Tensors of an int8 copy with their state when it was made.

    Raises:
        ValueError: A shape or dtype that does not fit the others; the message names it.
    """

    table: Tensor
    projection: Tensor | Int8Rows
    layers: tuple[DepthLayer, ...]
    norm: Tensor
    heads: Tensor | Int8Rows
    cos: Tensor
    sin: Tensor
    n_heads: int
    n_kv_heads: int
    eps: float
    cumulative: bool = False
    originals: tuple[tuple[Tensor, int, int], ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        books, half = self.cos.shape if self.cos.ndim == 2 else (0, 0)
        if books < 2 or half < 1 or not self.layers:
            raise ValueError(
                f"cos: expected [K, H / 2] of K >= 2 codebooks, and layers of at least one layer; got "
                f"{tuple(self.cos.shape)} and {len(self.layers)} layers"
            )
        if self.n_kv_heads < 1 or self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"n_kv_heads: expected a divisor of n_heads {self.n_heads}, got {self.n_kv_heads}"
            )
        vocab = self.table.shape[0] // books if self.table.ndim == 2 else 0
        width, hidden = self.norm.shape[0], _values(self.layers[0].gate).shape[0]
        inner, shared = 2 * half * self.n_heads, 2 * half * self.n_kv_heads
        outer = _values(self.projection).shape[-1]
        head = (vocab, width) if isinstance(self.heads, Int8Rows) else (width, vocab)
        expected = {
            "table": (books * vocab, outer),
            "projection": (width, outer),
            "norm": (width,),
            "heads": (books - 1, *head),
            "cos": (books, half),
            "sin": (books, half),
        }
        of_layer = {
            "attention_norm": (width,),
            "q": (inner, width),
            "k": (shared, width),
            "v": (shared, width),
            "o": (width, inner),
            "feed_forward_norm": (width,),
            "gate": (hidden, width),
            "up": (hidden, width),
            "down": (width, hidden),
        }
        found = [(name, getattr(self, name), shape) for name, shape in expected.items()]
        for index, layer in enumerate(self.layers):
            found += [(f"layers[{index}].{n}", getattr(layer, n), shape) for n, shape in of_layer.items()]
        for name, tensor, wanted in found:
            values = _values(tensor)
            dtypes = (torch.int8,) if isinstance(tensor, Int8Rows) else (torch.float32, torch.float64)
            if tuple(values.shape) != wanted or values.dtype not in dtypes or 0 in wanted:
                raise ValueError(
                    f"{name}: expected {' or '.join(map(str, dtypes))} {list(wanted)}, got {values.dtype} "
                    f"{list(values.shape)}; cos gives K and H, n_heads and n_kv_heads the rest"
                )
            if isinstance(tensor, Int8Rows) and tensor.scale.shape != values.shape[:-1]:
                raise ValueError(
                    f"{name}: expected a scale for every row, {list(values.shape[:-1])}, got "
                    f"{list(tensor.scale.shape)}"
                )
        kinds = {isinstance(tensor, Int8Rows) for tensor in self.matrices()}
        if len(kinds) > 1:
            raise ValueError("weights: expected all matrices in int8 or none; use DepthWeights.int8()")

    @property
    def books(self) -> int:
        """Codebooks of a frame, K."""
        return self.cos.shape[0]

    @property
    def vocab(self) -> int:
        """Codes of each codebook, V."""
        return self.table.shape[0] // self.books

    def matrices(self) -> Iterator[Tensor | Int8Rows]:
        """Yields the matrices that int8 replaces: all but the table, the norms and the positions."""
        yield self.projection
        yield self.heads
        for layer in self.layers:
            yield from (getattr(layer, name) for name in MATRICES)

    def int8(self) -> DepthWeights:
        """Returns a copy with every matrix in int8 and a scale per output row: a quarter of the bytes.

        Raises:
            ValueError: The weights are in int8 already.
        """
        originals = [tensor for tensor in self.matrices() if isinstance(tensor, Tensor)]
        if not originals or isinstance(self.projection, Int8Rows) or isinstance(self.heads, Int8Rows):
            raise ValueError("weights: expected fp32, got int8 already; make the copy from the fp32 weights")
        layers = []
        for layer in self.layers:
            rows: dict[str, Any] = {name: Int8Rows.of(getattr(layer, name)) for name in MATRICES}
            layers.append(layer._replace(**rows))
        return replace(
            self,
            projection=Int8Rows.of(self.projection),
            heads=Int8Rows.of(self.heads.transpose(1, 2)),
            layers=tuple(layers),
            originals=tuple((tensor, *_state(tensor)) for tensor in originals),
        )

    def is_current(self) -> bool:
        """Returns whether the originals of an int8 copy are unchanged; always true of fp32.

        A change through `.data` is not recorded by a tensor and is not detected.
        """
        return all(_state(tensor) == (where, version) for tensor, where, version in self.originals)


def _values(tensor: Tensor | Int8Rows) -> Tensor:
    return tensor.values if isinstance(tensor, Int8Rows) else tensor


def _state(tensor: Tensor) -> tuple[int, int]:
    # Inference tensors have no version counter.
    return tensor.data_ptr(), 0 if tensor.is_inference() else tensor._version
