"""RMSNorm, self-attention over packed sequences, SwiGLU: the only shared blocks.

Rows of all sequences of a batch lie in one tensor [R, D]; how they attend to each other is given by an
`Attend` object, so that the same layers serve packed training and cached generation.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Real
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from csm.network.initialise import draw
from csm.network.model_config import TransformerShape
from csm.network.rotary import Rotation, rotary_frequencies, rotate_both, rotation
from csm.network.varlen import HALF, kernel_for


class RMSNorm(nn.Module):
    """x / rms(x) * weight, in fp32. Source: Zhang & Sennrich 2019."""

    def __init__(self, width: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Float[Tensor, "*R D"]) -> Float[Tensor, "*R D"]:
        if x.is_cuda and x.dtype == self.weight.dtype:
            # CUDA's kernel computes in fp32 and rounds once: three conversions less for each norm.
            return F.rms_norm(x, self.weight.shape, self.weight, self.eps)
        return F.rms_norm(x.float(), self.weight.shape, self.weight.float(), self.eps).to(x.dtype)


def attend_grouped(
    q: Float[Tensor, "B N Q H"],
    k: Float[Tensor, "B M J H"],
    v: Float[Tensor, "B M J H"],
    *,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Float[Tensor, "B N Q H"]:
    """SDPA, M a divisor of N.

    On CUDA only flash attention takes groups of heads, and it takes neither fp32 nor a mask: keys and values
    are repeated there, else SDPA would form all scores (its math backend; pytorch#181528: 23.1 ms for 7.5).
    """
    share = q.shape[1] // k.shape[1]
    if share > 1 and q.is_cuda and (q.dtype not in HALF or mask is not None):
        k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
        share = 1
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=causal, enable_gqa=share > 1)


def attend_few(
    q: Float[Tensor, "B N Q H"],
    k: Float[Tensor, "B M J H"],
    v: Float[Tensor, "B M J H"],
    *,
    mask: Tensor | None = None,
    causal: bool = False,
) -> Float[Tensor, "B N Q H"]:
    """Attention over a few dozen keys: by the formula in fp32 on a CPU, by SDPA elsewhere.

    For the depth decoder's 400 frames of 16 rows in bfloat16, one CPU core took 132 ms for the backward of
    SDPA (torch 2.14) and 11 ms for these products.

    Args:
        q, k, v: N heads of queries, M of keys and values, M a divisor of N.
        mask: bool, broadcasts to [B, N, Q, J]; True is seen. Every query sees something.
        causal: Query i sees keys 0..i; excludes `mask`.
    """
    if q.device.type != "cpu":
        return attend_grouped(q, k, v, mask=mask, causal=causal)
    share = q.shape[1] // k.shape[1]
    if share > 1:
        k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
    if causal:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).tril()
    with torch.autocast("cpu", enabled=False):
        scores = (q.float() * q.shape[-1] ** -0.5) @ k.float().transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        return (scores.softmax(-1) @ v.float()).to(v.dtype)


@runtime_checkable
class Attend(Protocol):
    """How the rows of a layer attend: q [R, N, H], k and v [R, M, H] -> [R, N, H]."""

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor: ...


@runtime_checkable
class RowLayout(Attend, Protocol):
    """An Attend with the places of the rows of each sequence."""

    def pad(self, x: Tensor) -> Tensor:
        """[R, ...] -> [S, longest, ...]."""
        ...

    def unpad(self, x: Tensor) -> Tensor:
        """[S, longest, ...] -> [R, ...]."""
        ...


def near_rows(rows: Float[Tensor, "M D"], layout: PackedSequences, neighbours: int) -> Float[Tensor, "M D2"]:
    """Returns every row beside its neighbours in the same sequence, zeros beyond the ends.

    Args:
        rows: Rows of the sequences of `layout`.
        layout: Where each sequence begins and ends.
        neighbours: Odd number of rows side by side, the row itself in the middle.
    """
    reach = neighbours // 2
    padded = F.pad(layout.pad(rows), (0, 0, reach, reach))
    return layout.unpad(padded.unfold(1, neighbours, 1).transpose(2, 3).flatten(2))


@dataclass(frozen=True, eq=False)
class PackedSequences:
    """Causal attention inside each of several sequences packed end to end.

    Flash attention (`csm.network.varlen`) where the rows are on CUDA in half precision; elsewhere the rows
    are laid out padded on the right, where a causal mask alone keeps padding out of every real row.

    Attributes:
        cu_seqlens: int32 [S + 1], starts of the sequences and the total.
        longest: Rows of the longest one.
        places: int64 [R], place of each row among the padded ones.
    """

    cu_seqlens: Tensor
    longest: int
    places: Tensor

    @classmethod
    def of(cls, cu_seqlens: Int[Tensor, " S1"], longest: int) -> PackedSequences:
        """Returns the sequences with these starts; it waits for the device, if they are on one."""
        lengths, starts = cu_seqlens.diff().long(), cu_seqlens[:-1].long()
        sequence = torch.repeat_interleave(torch.arange(len(lengths), device=starts.device), lengths)
        rows = torch.arange(len(sequence), device=starts.device)
        return cls(cu_seqlens, longest, sequence * longest + rows - starts[sequence])

    @property
    def count(self) -> int:
        """Number of sequences."""
        return len(self.cu_seqlens) - 1

    def pad(self, x: Tensor) -> Tensor:
        """[R, ...] -> [S, longest, ...], zeros beyond a sequence's end."""
        # Places are unique, so that neither direction of the gradient adds into one row many times.
        padded = x.new_zeros(self.count * self.longest, *x.shape[1:]).index_copy(0, self.places, x)
        return padded.unflatten(0, (self.count, self.longest))

    def unpad(self, x: Tensor) -> Tensor:
        """[S, longest, ...] -> [R, ...]."""
        return x.flatten(0, 1).index_select(0, self.places)

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if kernel := kernel_for(q):
            ends = self.cu_seqlens
            return kernel(q, k, v, ends, ends, self.longest, self.longest, (-1, 0))
        q, k, v = (self.pad(t).transpose(1, 2) for t in (q, k, v))
        return self.unpad(attend_grouped(q, k, v, causal=True).transpose(1, 2))


class KeyValueCache:
    """Attention of new rows to all rows so far of one growing sequence; keys and values are kept.

    Args:
        layers: Number of layers that will attend.
        capacity: Most rows it will hold.
    """

    def __init__(self, layers: int, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._keys: list[Tensor | None] = [None] * layers
        self._values: list[Tensor | None] = [None] * layers

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self._keys[layer], self._values[layer]
        if keys is None or values is None:
            shape = (k.shape[1], self.capacity, k.shape[2])
            keys = self._keys[layer] = k.new_zeros(shape)
            values = self._values[layer] = v.new_zeros(shape)
        new = q.shape[0]
        end = self.length + new
        if end > self.capacity:
            raise ValueError(
                f"key-value cache holds {self.capacity} rows, {end} were asked for: raise max_context"
            )
        keys[:, self.length : end] = k.transpose(0, 1)
        values[:, self.length : end] = v.transpose(0, 1)
        mask = None
        if new > 1:
            rows = torch.arange(new, device=q.device).unsqueeze(1) + self.length
            mask = torch.arange(end, device=q.device) <= rows
        out = attend_grouped(
            q.transpose(0, 1).unsqueeze(0),
            keys[:, :end].unsqueeze(0),
            values[:, :end].unsqueeze(0),
            mask=mask,
        )
        return out[0].transpose(0, 1)

    def rows_from(self, layer: int, first: int = 0) -> tuple[Tensor, Tensor]:
        """Returns keys and values [M, rows, H] of rows `first` and on of a layer that has attended: views."""
        keys, values = self._keys[layer], self._values[layer]
        assert keys is not None and values is not None, f"layer {layer} has not attended yet"
        return keys[:, first : self.length], values[:, first : self.length]

    def pad(self, x: Tensor) -> Tensor:
        """[R, ...] -> [1, R, ...]."""
        return x.unsqueeze(0)

    def unpad(self, x: Tensor) -> Tensor:
        """[1, R, ...] -> [R, ...]."""
        return x[0]

    def copy(self) -> KeyValueCache:
        """Returns a cache with the same rows, which grows by itself."""
        other = KeyValueCache(len(self._keys), self.capacity)
        other.length = self.length
        for mine, copies in ((self._keys, other._keys), (self._values, other._values)):
            for layer, kept in enumerate(mine):
                if kept is not None:
                    copies[layer] = copied = torch.zeros_like(kept)
                    copied[:, : self.length] = kept[:, : self.length]
        return other

    def advance(self, rows: int) -> None:
        """To be called once after all layers have seen the new rows."""
        self.length += rows


class SelfAttention(nn.Module):
    """Grouped-query attention with rotary positions; who sees whom is the `attend` object's business."""

    frequencies: Tensor

    def __init__(self, shape: TransformerShape, base: float, scaling: float) -> None:
        super().__init__()
        width, self.n_heads, self.n_kv_heads = shape.width, shape.heads, shape.kv_heads
        self.head_dim = width // self.n_heads
        self.q_proj = nn.Linear(width, self.n_heads * self.head_dim, bias=False)
        self.k_proj = nn.Linear(width, self.n_kv_heads * self.head_dim, bias=False)
        self.v_proj = nn.Linear(width, self.n_kv_heads * self.head_dim, bias=False)
        self.o_proj = nn.Linear(self.n_heads * self.head_dim, width, bias=False)
        frequencies = rotary_frequencies(self.head_dim, base, scaling)
        self.register_buffer("frequencies", frequencies, persistent=False)

    def reset_parameters(self, branch_std: float) -> None:
        """Draws the initial weights."""
        draw(self.q_proj, self.k_proj, self.v_proj)
        draw(self.o_proj, std=branch_std)

    def forward(
        self, x: Float[Tensor, "R D"], to: Rotation, attend: Attend, layer: int
    ) -> Float[Tensor, "R D"]:
        rows = x.shape[0]
        q = self.q_proj(x).view(rows, self.n_heads, self.head_dim)
        k = self.k_proj(x).view(rows, self.n_kv_heads, self.head_dim)
        q, k = rotate_both(q, k, to)
        v = self.v_proj(x).view(rows, self.n_kv_heads, self.head_dim)
        return self.o_proj(attend(layer, q, k, v).flatten(1))


class _GatedSiLU(torch.autograd.Function):
    """silu(gate) * up, keeping its two inputs alone for the backward pass, not silu(gate) beside them."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return F.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        of_gate = torch.ops.aten.silu_backward(gradient * up, gate)
        return of_gate, F.silu(gate).mul_(gradient)


class FeedForward(nn.Module):
    """SwiGLU. Source: Shazeer 2020."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def reset_parameters(self, branch_std: float) -> None:
        """Draws the initial weights."""
        draw(self.gate_proj, self.up_proj)
        draw(self.down_proj, std=branch_std)

    def forward(self, x: Float[Tensor, "*R D"]) -> Float[Tensor, "*R D"]:
        return self.down_proj(_GatedSiLU.apply(self.gate_proj(x), self.up_proj(x)))


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and SwiGLU, each added to the residual stream.

    Args:
        shape: Sizes of the transformer.
        base, scaling: Base and scaling of the rotary positions.
        dropout: Dropout on the residual branches.

    Attributes:
        checkpointed: Whether training keeps the input alone and computes the rest again in the backward pass.
    """

    def __init__(
        self, shape: TransformerShape, *, base: float, scaling: float = 1.0, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(shape.width)
        self.attention = SelfAttention(shape, base, scaling)
        self.feed_forward_norm = RMSNorm(shape.width)
        self.feed_forward = FeedForward(shape.width, shape.hidden)
        self.dropout = nn.Dropout(dropout)
        self.checkpointed = False

    def reset_parameters(self, branch_std: float) -> None:
        """Draws the initial weights; those that write to the residual stream with `branch_std`."""
        self.attention.reset_parameters(branch_std)
        self.feed_forward.reset_parameters(branch_std)

    def rotation(self, positions: Real[Tensor, " R"]) -> Rotation:
        """Returns the rotation of rows at these positions, equal for all blocks of one transformer."""
        return rotation(positions, self.attention.frequencies)

    def forward(
        self, x: Float[Tensor, "R D"], to: Rotation, attend: Attend, layer: int
    ) -> Float[Tensor, "R D"]:
        if self.checkpointed and self.training and torch.is_grad_enabled():
            # The reentrant form: its losses are equal in all ZeRO stages. It gives the weights a gradient
            # only where the input has one, so above frozen embeddings that is asked for.
            x = x if x.requires_grad else x.detach().requires_grad_()
            rows: Tensor = checkpoint(self._rows, x, to, attend, layer, use_reentrant=True)
            return rows
        return self._rows(x, to, attend, layer)

    def _rows(self, x: Tensor, to: Rotation, attend: Attend, layer: int) -> Tensor:
        x = x + self.dropout(self.attention(self.attention_norm(x), to, attend, layer))
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
