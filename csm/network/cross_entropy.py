"""Cross-entropy of a linear head whose logits are never formed whole."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from csm.network.float8 import GRADIENT, INPUT, Rounded, product
from csm.sequences.target_rows import IGNORE

# Logits formed at a time: 16 MB of fp32, and 128 MB on a GPU, which would wait for its launches else.
CHUNK, CUDA_CHUNK = 4 * 2**20, 32 * 2**20
# Whether the heads of all groups are multiplied at once; None: on CUDA.
TOGETHER: bool | None = None
# Liger's Triton kernel does the same for one head with less traffic: used on CUDA where it is installed.
HAS_LIGER = importlib.util.find_spec("liger_kernel") is not None


def linear_cross_entropy(
    rows: Float[Tensor, "G N D"],
    heads: Float[Tensor, "G D V"],
    targets: Int[Tensor, "G N"],
    label_smoothing: float = 0.0,
    some_ignored: bool = False,
    float8: bool = False,
) -> Float[Tensor, " G"]:
    """Sums over each group's rows of the cross-entropy of `rows @ heads` with the targets, in nats, fp32.

    Equal to F.cross_entropy(logits.float(), targets, reduction="sum", label_smoothing=...) group by group,
    but logits exist for CHUNK at a time, and their gradient is turned into the rows' and heads' while they
    do: the forward pass makes the whole gradient, the backward pass scales it. Under autocast the products
    run in its dtype. Source of the idea: Liger kernels' fused linear cross-entropy (Hsu et al. 2024).

    Args:
        rows: Inputs of each head; N may be 0.
        heads: One linear head per group.
        targets: In [0, V); with `some_ignored` also IGNORE, whose rows count for nothing.
        label_smoothing: Share of the target's probability that is spread over all V.
        some_ignored: Whether there may be targets of IGNORE.
        float8: Whether the products run in float8 (`csm.network.float8`), those of each group by themselves.
    """
    needs = torch.is_grad_enabled() and (rows.requires_grad or heads.requires_grad)
    options = label_smoothing, some_ignored, float8, needs, _product_dtype(rows)
    if torch.compiler.is_compiling():
        # One operator: traced, the loop over chunks would make the number of rows a constant of the graph.
        compiled: Tensor = _compiled(rows, heads, targets, *options)[0]
        return compiled
    if HAS_LIGER and rows.is_cuda and len(rows) == 1 and rows.shape[1] and not float8:
        return liger_cross_entropy(rows, heads, targets, label_smoothing)
    sums: Tensor = _LinearCrossEntropy.apply(rows, heads, targets, *options)
    return sums


def liger_cross_entropy(
    rows: Float[Tensor, "G N D"],
    heads: Float[Tensor, "G D V"],
    targets: Int[Tensor, "G N"],
    label_smoothing: float = 0.0,
) -> Float[Tensor, " G"]:
    """`linear_cross_entropy` by Liger kernels, one call per group; N at least 1."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    dtype = _product_dtype(rows)
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
        some_ignored: bool = False,
        float8: bool = False,
    ) -> Float[Tensor, "*N V"] | Float[Tensor, ""]:
        """[..., V] logits of `input` [..., D]; with targets [N], the sum over N rows in nats."""
        if targets is None:
            return super().forward(input)
        options = label_smoothing, some_ignored, float8
        return linear_cross_entropy(input[None], self.weight.T[None], targets[None], *options)[0]


def _product_dtype(rows: Tensor) -> torch.dtype:
    """The dtype of products with these rows: autocast's, which leaves float64 alone."""
    device = rows.device.type
    if rows.dtype != torch.float64 and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return rows.dtype


def _sums_and_gradients(
    rows: Tensor,
    heads: Tensor,
    targets: Tensor,
    smoothing: float,
    some_ignored: bool,
    float8: bool,
    needs_gradient: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the sums [G] and their gradients of rows and heads, which are empty where none is needed."""
    sums = torch.zeros(len(rows), dtype=torch.float32, device=rows.device)
    row_gradient = torch.zeros_like(rows) if needs_gradient else rows.new_empty(0)
    head_gradient = torch.zeros_like(heads) if needs_gradient else heads.new_empty(0)
    parts: list[Tensor] = [rows, heads, targets, sums]
    if needs_gradient:
        parts += [row_gradient, head_gradient]
    # A GPU takes all heads in one batched product; a CPU's caches hold one head's logits at a time.
    together = (TOGETHER if TOGETHER is not None else rows.is_cuda) and not float8
    options: dict[str, Any] = {"smoothing": smoothing, "some_ignored": some_ignored, "dtype": dtype}
    # The caller's autocast is in `dtype`: a compiled graph runs its operators without one.
    with torch.autocast(rows.device.type, enabled=False):
        for some in [parts] if together else zip(*parts, strict=True):
            _add_sums_and_gradients(*some, float8=float8, **options)
    return sums, row_gradient, head_gradient


def _add_sums_and_gradients(
    rows: Tensor,
    head: Tensor,
    targets: Tensor,
    sums: Tensor,
    row_gradient: Tensor | None = None,
    head_gradient: Tensor | None = None,
    *,
    smoothing: float,
    some_ignored: bool,
    float8: bool,
    dtype: torch.dtype,
) -> None:
    """Adds to the last three; all have the dimension of groups in front, or none has."""
    size = head.shape[-1]
    step = max(1, (CUDA_CHUNK if rows.is_cuda else CHUNK) // (size * sums.numel()))
    factor = _factor(head, dtype, INPUT if float8 else None)
    for start in range(0, rows.shape[-2], step):
        x = _factor(rows[..., start : start + step, :], dtype, INPUT if float8 else None)
        target = targets[..., start : start + step, None]
        ignored = target == IGNORE if some_ignored else None
        target = target if ignored is None else target.clamp_min(0)
        logits = _times(x, factor).float()
        normaliser = logits.logsumexp(-1, keepdim=True)
        loss = normaliser - (1 - smoothing) * logits.gather(-1, target)
        if smoothing:
            loss = loss - smoothing * logits.mean(-1, keepdim=True)
        if ignored is not None:
            loss = loss.masked_fill(ignored, 0)
        sums += loss.sum((-2, -1))
        if row_gradient is None or head_gradient is None:
            continue
        slope = logits.sub_(normaliser).exp_()
        if smoothing:
            slope.sub_(smoothing / size)
        slope.scatter_add_(-1, target, torch.full_like(target, smoothing - 1, dtype=slope.dtype))
        if ignored is not None:
            slope.masked_fill_(ignored, 0)
        slopes = _factor(slope, dtype, GRADIENT if float8 else None)
        row_gradient[..., start : start + step, :] = _times(slopes, factor.mT)
        if isinstance(x, Rounded) or isinstance(slopes, Rounded) or dtype != head_gradient.dtype:
            head_gradient += _times(x.mT, slopes)
        elif head_gradient.ndim == 2:  # in place: adding a product would form it first
            head_gradient.addmm_(x.mT, slopes)
        else:
            head_gradient.baddbmm_(x.mT, slopes)


def _factor(x: Tensor, dtype: torch.dtype, rounded_to: torch.dtype | None) -> Tensor | Rounded:
    """Returns a factor of products in `dtype`, or rounded to a float8 dtype."""
    return x.to(dtype) if rounded_to is None else Rounded.of(x, rounded_to)


def _times(a: Tensor | Rounded, b: Tensor | Rounded) -> Tensor:
    """Returns a product of two factors of a kind."""
    if isinstance(a, Rounded) and isinstance(b, Rounded):
        return product(a, b, torch.float32)
    assert isinstance(a, Tensor) and isinstance(b, Tensor)
    return a @ b


def _scaled(gradient: Tensor, rows: Tensor, heads: Tensor) -> tuple[Tensor | None, ...]:
    scale = gradient[:, None, None]
    return rows * scale.to(rows.dtype), heads * scale.to(heads.dtype), *[None] * 6


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> Tensor:
        sums, *gradients = _sums_and_gradients(*arguments)
        ctx.save_for_backward(*gradients)
        return sums

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        return _scaled(gradient, *ctx.saved_tensors)


@torch.library.custom_op("csm::linear_cross_entropy", mutates_args=())
def _compiled(
    rows: Tensor,
    heads: Tensor,
    targets: Tensor,
    smoothing: float,
    some_ignored: bool,
    float8: bool,
    needs_gradient: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    return _sums_and_gradients(rows, heads, targets, smoothing, some_ignored, float8, needs_gradient, dtype)


@_compiled.register_fake
def _(
    rows: Tensor,
    heads: Tensor,
    targets: Tensor,
    smoothing: float,
    some_ignored: bool,
    float8: bool,
    needs_gradient: bool,
    dtype: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    sums = rows.new_empty(rows.shape[0], dtype=torch.float32)
    if not needs_gradient:
        return sums, rows.new_empty(0), heads.new_empty(0)
    return sums, torch.empty_like(rows), torch.empty_like(heads)


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(*output[1:])


def _compiled_backward(ctx: Any, gradient: Tensor, *_: Tensor | None) -> tuple[Tensor | None, ...]:
    return _scaled(gradient, *ctx.saved_tensors)


_compiled.register_autograd(_compiled_backward, setup_context=_keep_gradients)
