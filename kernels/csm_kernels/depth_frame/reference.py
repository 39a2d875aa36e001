"""The specification of depth_frame in plain PyTorch, for any float dtype and device.

A depth decoder draws codes 1..K-1 of one frame: at each step a causal transformer runs over all rows so far,
and a head gives the logits that the next code is drawn from. The kernel does the same with cached keys.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from csm_kernels.depth_frame.weights import DepthLayer, DepthWeights
from csm_kernels.int8_rows import Int8Rows


def draw(
    hidden: Tensor,
    code: int,
    weights: DepthWeights,
    drawn: int,
    temperature: float,
    top_k: int,
    uniforms: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See `csm_kernels.depth_frame`: codes [K] and logits [K - 1, V]; -1 for a code that cannot be drawn."""
    codes, logits = [code], []
    rows = hidden.unsqueeze(0)
    for book in range(1, weights.books):
        position = codes[-1] + (book - 1) * weights.vocab
        rows = torch.cat([rows, weights.table[position].unsqueeze(0)])
        # All rows are computed again at every step; a cache of keys and values must give the same.
        last = _forward(rows.cumsum(0) if weights.cumulative else rows, weights)[-1]
        head = _matrix(weights.heads, last)[book - 1]
        logits.append(head @ last if isinstance(weights.heads, Int8Rows) else last @ head)
        uniform = None if uniforms is None else float(uniforms[book - 1])
        codes.append(_choose(logits[-1][:drawn], temperature, top_k, uniform))
        if codes[-1] < 0:
            break
    return torch.tensor(codes, device=hidden.device), torch.stack(logits)


def _matrix(matrix: Tensor | Int8Rows, like: Tensor) -> Tensor:
    return (matrix.restored() if isinstance(matrix, Int8Rows) else matrix).to(like.dtype)


def _forward(rows: Tensor, weights: DepthWeights) -> Tensor:
    x = rows @ _matrix(weights.projection, rows).T
    for layer in weights.layers:
        x = x + _attention(_norm(x, layer.attention_norm, weights.eps), layer, weights)
        y = _norm(x, layer.feed_forward_norm, weights.eps)
        gate, up, down = (_matrix(m, x) for m in (layer.gate, layer.up, layer.down))
        x = x + (F.silu(y @ gate.T) * (y @ up.T)) @ down.T
    return _norm(x, weights.norm, weights.eps)


def _attention(x: Tensor, layer: DepthLayer, weights: DepthWeights) -> Tensor:
    q, k, v = ((x @ _matrix(m, x).T).unflatten(1, (-1, 2 * weights.cos.shape[1])).transpose(0, 1)
               for m in (layer.q, layer.k, layer.v))  # fmt: skip
    share = weights.n_heads // weights.n_kv_heads
    k, v = _rotate(k, weights).repeat_interleave(share, 0), v.repeat_interleave(share, 0)
    out = F.scaled_dot_product_attention(_rotate(q, weights), k, v, is_causal=True)
    return out.transpose(0, 1).flatten(1) @ _matrix(layer.o, x).T


def _rotate(x: Tensor, weights: DepthWeights) -> Tensor:
    cos, sin = (t[: x.shape[1]].to(x.dtype) for t in (weights.cos, weights.sin))
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def _norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return F.rms_norm(x, weight.shape, weight.to(x.dtype), eps)


def _choose(logits: Tensor, temperature: float, top_k: int, uniform: float | None) -> int:
    if not bool(logits.amax().isfinite()):
        return -1
    if temperature == 0 or uniform is None:
        return int(logits.argmax())
    # The top_k largest logits (of equal ones the lowest codes), in the order of the codes.
    kept = logits.argsort(descending=True, stable=True)[: top_k or None].sort().values
    passed = ((logits[kept] - logits.amax()) / temperature).exp().double().cumsum(0)
    return int(kept[torch.searchsorted(passed, uniform * passed[-1], right=True)])
