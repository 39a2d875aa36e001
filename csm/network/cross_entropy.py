"""Cross-entropy of a linear head whose logits are never formed whole."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

CHUNK = 4 * 2**20  # logits formed at a time: 16 MB of fp32
# Liger's Triton kernel does the same with less traffic; it is the one on CUDA where it is installed.
HAS_LIGER = importlib.util.find_spec("liger_kernel") is not None


def linear_cross_entropy(
    rows: Float[Tensor, "G N D"],
    heads: Float[Tensor, "G D V"],
    targets: Int[Tensor, "G N"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, " G"]:
    """Sums over each group's rows of the cross-entropy of `rows @ heads` with the targets, in nats, fp32.

    Equal to F.cross_entropy(logits.float(), targets, reduction="sum", label_smoothing=...) group by group,
    but logits exist for CHUNK at a time, and their gradient is turned into the rows' and heads' while they
    do: the forward pass makes the whole gradient, the backward pass scales it. Under autocast the products
    run in its dtype. Source of the idea: Liger kernels' fused linear cross-entropy (Hsu et al. 2024).

    Args:
        rows: Inputs of each head; N may be 0.
        heads: One linear head per group.
        targets: In [0, V).
        label_smoothing: Share of the target's probability that is spread over all V.
    """
    if HAS_LIGER and rows.is_cuda and rows.shape[1]:
        return liger_cross_entropy(rows, heads, targets, label_smoothing)
    needs = torch.is_grad_enabled() and (rows.requires_grad or heads.requires_grad)
    sums: Tensor = _LinearCrossEntropy.apply(rows, heads, targets, label_smoothing, needs)
    return sums


def liger_cross_entropy(
    rows: Float[Tensor, "G N D"],
    heads: Float[Tensor, "G D V"],
    targets: Int[Tensor, "G N"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, " G"]:
    """`linear_cross_entropy` by Liger kernels, one call per group; N at least 1."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    device = rows.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else rows.dtype
    sums = []
    for x, head, target in zip(rows.to(dtype), heads.to(dtype), targets, strict=True):
        found = liger_fused_linear_cross_entropy(
            x, head.T.contiguous(), target, reduction="sum", label_smoothing=label_smoothing
        )
        sums.append((found[0] if isinstance(found, tuple) else found).float())
    return torch.stack(sums)


class Head(nn.Linear):
    """A linear head that gives logits, or with targets their summed cross-entropy."""

    def forward(
        self,
        input: Float[Tensor, "*N D"],
        targets: Int[Tensor, " N"] | None = None,
        label_smoothing: float = 0.0,
    ) -> Float[Tensor, "*N V"] | Float[Tensor, ""]:
        """[..., V] logits of `input` [..., D]; with targets [N], the sum over N rows in nats."""
        if targets is None:
            return super().forward(input)
        return linear_cross_entropy(input[None], self.weight.T[None], targets[None], label_smoothing)[0]


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, heads: Tensor, targets: Tensor, smoothing: float, needs_gradient: bool
    ) -> Tensor:
        groups, count, _ = rows.shape
        size = heads.shape[2]
        sums = torch.zeros(groups, dtype=torch.float32, device=rows.device)
        row_gradient = torch.zeros_like(rows) if needs_gradient else None
        head_gradient = torch.zeros_like(heads) if needs_gradient else None
        step = max(1, CHUNK // size)
        for group in range(groups):
            for start in range(0, count, step):
                x, target = rows[group, start : start + step], targets[group, start : start + step, None]
                logits = (x @ heads[group]).float()
                normaliser = logits.logsumexp(1, keepdim=True)
                loss = normaliser - (1 - smoothing) * logits.gather(1, target)
                if smoothing:
                    loss = loss - smoothing * logits.mean(1, keepdim=True)
                sums[group] += loss.sum()
                if row_gradient is None or head_gradient is None:
                    continue
                slope = logits.sub_(normaliser).exp_()
                if smoothing:
                    slope.sub_(smoothing / size)
                slope.scatter_add_(1, target, torch.full_like(target, smoothing - 1, dtype=slope.dtype))
                slope = slope.to(rows.dtype)
                row_gradient[group, start : start + step] = slope @ heads[group].T
                # In place where the dtypes allow: adding a product would form it first.
                if torch.is_autocast_enabled(rows.device.type):
                    head_gradient[group] += x.T @ slope
                else:
                    head_gradient[group].addmm_(x.T, slope)
        if row_gradient is not None and head_gradient is not None:
            ctx.save_for_backward(row_gradient, head_gradient)
        return sums

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        rows, heads = ctx.saved_tensors
        scale = gradient[:, None, None]
        return rows * scale.to(rows.dtype), heads * scale.to(heads.dtype), None, None, None
