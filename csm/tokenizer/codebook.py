"""A residual stack of codebooks: its vectors and the running statistics that update them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from csm_kernels import Assignment, rvq_search

KMEANS_STEPS = 8
# Share of uniform usage below which k-means replaces a vector.
FEWEST_SHARE = 0.1
# Distance between the two vectors that start in one cell, in standard deviations of the residual.
SPLIT_DISTANCE = 0.1


class CodebookStack(nn.Module):
    """Q codebooks of V vectors, each searched for the residual of the earlier ones.

    The vectors are no parameters: they are the exponential moving average of the rows assigned to them (van
    den Oord et al. 2017, appendix A.1), which `csm_kernels.ema_update_stacks` updates once per optimizer
    step. All three buffers stay fp32 when the module is cast: in bf16 an average of decay 0.99 does not move.

    Args:
        num_codebooks: Number of codebooks Q.
        codebook_size: Vectors of each codebook V.
        codebook_dim: Width of a vector D.
    """

    codebooks: Tensor
    usage: Tensor
    vector_sum: Tensor

    def __init__(self, num_codebooks: int, codebook_size: int, codebook_dim: int) -> None:
        super().__init__()
        self.num_codebooks, self.codebook_size, self.codebook_dim = num_codebooks, codebook_size, codebook_dim
        vectors = torch.randn(num_codebooks, codebook_size, codebook_dim) * 0.1
        self.register_buffer("codebooks", vectors)
        self.register_buffer("usage", torch.ones(num_codebooks, codebook_size))
        self.register_buffer("vector_sum", vectors.clone())

    def _apply(self, fn, recurse: bool = True):
        """Moves devices as any module does, but keeps buffers in fp32 under `.bfloat16()` and `.half()`."""
        kept = {name: buffer for name, buffer in self._buffers.items() if buffer is not None}
        super()._apply(fn, recurse)
        for name, before in kept.items():
            after = self._buffers[name]
            if after is not None and after.dtype != torch.float32:
                self._buffers[name] = before.to(after.device)
        return self

    def lookup(
        self, codes: Int[Tensor, "N Q"], levels: Int[Tensor, " N"] | None = None
    ) -> Float[Tensor, "N D"]:
        """Returns the sum of the vectors of the codes.

        Args:
            codes: Codes int64 [N, Q] in [0, codebook_size); Q may be any prefix of the codebooks, 0 too.
            levels: Number of codes of each row that count, int64 [N]. None: all.

        Returns:
            Sums fp32 [N, D].
        """
        num_levels = codes.shape[1]
        if num_levels == 0:
            return self.codebooks.new_zeros(codes.shape[0], self.codebook_dim)
        offsets = torch.arange(num_levels, device=codes.device) * self.codebook_size
        weights = None
        if levels is not None:
            active = torch.arange(num_levels, device=codes.device) < levels.unsqueeze(1)
            weights = active.to(self.codebooks.dtype)
        table = self.codebooks.reshape(-1, self.codebook_dim)
        return F.embedding_bag(codes + offsets, table, mode="sum", per_sample_weights=weights)

    @torch.no_grad()
    def fit(
        self, x: Float[Tensor, "N D"], generator: torch.Generator, *, keep: bool = False
    ) -> Float[Tensor, "N D"]:
        """Sets every codebook by k-means of the residual that the earlier ones leave of x, in place.

        A vector with hardly any rows is moved beside the vector of a crowded cell, which the two then share.
        (Moved to a far row it would describe that row alone: in this many dimensions no other row is near.)

        Args:
            x: Rows to describe, [N, D], on any device; N at least 1.
            generator: Random generator on the CPU, so that every device draws the same rows.
            keep: Whether k-means starts at the present vectors; else it starts at rows of x with added noise.

        Returns:
            Sum of the vectors nearest to each row, [N, D].
        """
        x = x.detach().float()
        residual, fewest = x, FEWEST_SHARE * len(x) / self.codebook_size
        for level in range(self.num_codebooks):
            book = self.codebooks[level : level + 1]
            if not keep:
                rows = torch.randint(len(x), (self.codebook_size,), generator=generator).to(x.device)
                noise = torch.randn(self.codebook_size, self.codebook_dim, generator=generator).to(x.device)
                book[0] = residual[rows] + 0.1 * residual.std(correction=0) * noise
            for step in range(KMEANS_STEPS):
                found = rvq_search(residual, book)
                nearest = found.codes[:, 0]
                count = torch.bincount(nearest, minlength=self.codebook_size).unsqueeze(1)
                total = torch.zeros_like(book[0]).index_add_(0, nearest, residual)
                book[0] = torch.where(count > 0, total / count.clamp_min(1), book[0])
                rare = (count[:, 0] < fewest).nonzero()[:, 0]
                # Not in the last step: a moved vector needs one more to become the mean of its rows.
                if len(rare) and step < KMEANS_STEPS - 1:
                    crowded = count[:, 0].argsort(descending=True, stable=True)[: len(rare)]
                    rare = rare[: len(crowded)]
                    noise = torch.randn(len(rare), self.codebook_dim, generator=generator).to(x.device)
                    beside = SPLIT_DISTANCE * found.residual.std(correction=0) * noise
                    book[0, rare] = book[0, crowded] + beside
            residual = rvq_search(residual, book).residual
        self.vector_sum.copy_(self.codebooks)
        self.usage.fill_(1.0)
        return x - residual

    def assigned(
        self, x: Float[Tensor, "N D"], codes: Int[Tensor, "N Q"], levels: Int[Tensor, " N"]
    ) -> Assignment:
        """Returns the input of `csm_kernels.ema_update_stacks`, which updates these codebooks in place.

        Args:
            x: Rows that were quantized in this step, [N, D].
            codes: Codes of the rows under the present codebooks, int64 [N, Q].
            levels: Number of codebooks that each row was quantized with, int64 [N]; later ones ignore it.
        """
        rows = x.detach().float()
        return Assignment(rows, codes, self.codebooks, self.usage, self.vector_sum, levels=levels)
