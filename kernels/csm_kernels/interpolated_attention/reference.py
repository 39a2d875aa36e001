"""The specification of interpolated_attention in plain PyTorch, one sequence at a time.

Keys and values of each sequence are resampled linearly to another length; each query attends to the resampled
positions within a window around its own position. The kernels never store the resampled keys and values.
"""

import torch
from torch import Tensor


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    cu_seqlens_q: Tensor,
    cu_seqlens_k: Tensor,
    lengths: Tensor,
    query_offsets: Tensor,
    window: int | None,
    scale: float,
) -> Tensor:
    """See `csm_kernels.interpolated_attention`. Differentiable by autograd, in the dtype given."""
    bounds_q, bounds_k = cu_seqlens_q.tolist(), cu_seqlens_k.tolist()
    outputs = [q[:0]]
    for index, (length, offset) in enumerate(zip(lengths.tolist(), query_offsets.tolist(), strict=True)):
        queries = q[bounds_q[index] : bounds_q[index + 1]]
        keys, values = (t[bounds_k[index] : bounds_k[index + 1]] for t in (k, v))
        if not len(queries) or not len(keys) or not length:
            outputs.append(queries.masked_fill(torch.ones_like(queries, dtype=torch.bool), 0))
            continue
        keys, values = (
            torch.nn.functional.interpolate(
                t.permute(1, 2, 0), size=length, mode="linear", align_corners=False
            ).transpose(1, 2)
            for t in (keys, values)
        )  # [H, L, d]
        distance = torch.arange(len(queries), device=q.device)[:, None] + offset
        distance = (distance - torch.arange(length, device=q.device)).abs()
        seen = distance <= (torch.iinfo(torch.int64).max if window is None else window)
        logits = scale * queries.transpose(0, 1) @ keys.transpose(1, 2)
        shares = logits.masked_fill(~seen, -torch.inf).softmax(-1)
        shares = shares.masked_fill(~seen.any(1, keepdim=True), 0)  # no position in the window: output 0
        outputs.append((shares @ values).transpose(0, 1))
    return torch.cat(outputs)
