"""The state of a residual stack of codebooks: vectors and the statistics they follow."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from csm_kernels import Assignment, rvq_search


class CodebookStack(nn.Module):
    """Q codebooks of V vectors, searched one after the other on what the earlier ones left.

    The vectors are no parameters: they follow the exponential moving average of the vectors assigned to them
    (van den Oord et al. 2017, appendix A.1), by the explicit call `update`, once per optimizer step. All
    three buffers stay fp32 whatever the module is cast to: in bf16 an average of decay 0.99 stands still.

    Args:
        num_codebooks, codebook_size, codebook_dim: Q, V and D.
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
        """Moves devices like any module, but keeps the statistics in fp32 under `.bfloat16()`, `.half()`."""
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
        """Sum of the vectors of the codes.

        Args:
            codes: int64 [N, Q], in [0, codebook_size); Q may be any prefix of the codebooks, 0 too.
            levels: int64 [N], only the first levels[n] codes of row n count. None: all.

        Returns:
            fp32 [N, D].
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
    def initialise(self, x: Float[Tensor, "N D"], generator: torch.Generator) -> None:
        """Sets every codebook to rows of what the earlier ones left of x, with a little noise, in place.

        Args:
            x: [N, D], vectors to describe, on any device; N at least 1.
            generator: On the CPU, so that every device draws the same rows.
        """
        residual = x.detach().float().clone()
        for level in range(self.num_codebooks):
            rows = torch.randint(len(residual), (self.codebook_size,), generator=generator).to(x.device)
            noise = torch.randn(self.codebook_size, self.codebook_dim, generator=generator).to(x.device)
            self.codebooks[level] = residual[rows] + 0.1 * residual.std() * noise
            found = rvq_search(residual, self.codebooks[level : level + 1])
            residual = found.residual
        self.vector_sum.copy_(self.codebooks)
        self.usage.fill_(1.0)

    def assigned(
        self, x: Float[Tensor, "N D"], codes: Int[Tensor, "N Q"], levels: Int[Tensor, " N"]
    ) -> Assignment:
        """What a step's update of these codebooks needs; `csm_kernels.ema_update_stacks` makes it, in place.

        Args:
            x: [N, D], what was quantized in this step.
            codes: int64 [N, Q], chosen with the codebooks as they are now.
            levels: int64 [N], how many codebooks row n was quantized with; it counts in no later one.
        """
        rows = x.detach().float()
        return Assignment(rows, codes, self.codebooks, self.usage, self.vector_sum, levels=levels)
