"""The semantic / acoustic split: ten codebooks for what is said, the others for what is left of the sound."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from csm.tokenizer.codebook import CodebookStack
from csm_kernels import rvq_search


class Quantized(NamedTuple):
    """What the quantizer returns.

    Attributes:
        codes: int64 [B, K, T].
        latent: [B, T, D], the sum of both parts projected back; straight-through gradient.
        semantic: [B, T, C], the sum of the semantic vectors; straight-through gradient.
        commitment_loss: Scalar, distance of the projections from the vectors chosen for them.
        isotropy_loss: Scalar, how unevenly the projections vary over directions.
        semantic_rows, acoustic_rows: [N, C], what was quantized (detached), for the codebook update.
    """

    codes: Tensor
    latent: Tensor
    semantic: Tensor
    commitment_loss: Tensor
    isotropy_loss: Tensor
    semantic_rows: Tensor
    acoustic_rows: Tensor


class SplitQuantizer(nn.Module):
    """Two residual stacks in a row, each in its own projection.

    The acoustic stack quantizes what the semantic one left of the encoder's latent, so that a prefix of the
    codes is always the best description of its length.

    Args:
        width: D, of the encoder's latent.
        num_codebooks: K, of which the first `semantic_codebooks` form the semantic stack.
        semantic_codebooks: Above 0 and below num_codebooks.
        codebook_size, codebook_dim: Vectors per codebook and their width C.
    """

    def __init__(
        self, width: int, num_codebooks: int, semantic_codebooks: int, codebook_size: int, codebook_dim: int
    ) -> None:
        super().__init__()
        self.num_codebooks, self.semantic_codebooks = num_codebooks, semantic_codebooks
        self.semantic = CodebookStack(semantic_codebooks, codebook_size, codebook_dim)
        self.acoustic = CodebookStack(num_codebooks - semantic_codebooks, codebook_size, codebook_dim)
        self.semantic_in = nn.Linear(width, codebook_dim)
        self.semantic_out = nn.Linear(codebook_dim, width)
        self.acoustic_in = nn.Linear(width, codebook_dim)
        self.acoustic_out = nn.Linear(codebook_dim, width)

    @torch.no_grad()
    def fit(self, latent: Float[Tensor, "N D"], generator: torch.Generator, *, keep: bool = False) -> None:
        """Sets both stacks' codebooks by k-means of latents [N, D]; as `CodebookStack.fit`."""
        semantic = self.semantic.fit(self.semantic_in(latent), generator, keep=keep)
        self.acoustic.fit(self.acoustic_in(latent - self.semantic_out(semantic)), generator, keep=keep)

    def split_levels(self, levels: Int[Tensor, " B"]) -> tuple[Int[Tensor, " B"], Int[Tensor, " B"]]:
        """Active levels of each stack when the first `levels` codebooks are used."""
        semantic = levels.clamp(max=self.semantic_codebooks)
        return semantic, (levels - self.semantic_codebooks).clamp(min=0)

    def forward(
        self,
        latent: Float[Tensor, "B T D"],
        levels: Int[Tensor, " B"] | None = None,
        mask: Tensor | None = None,
        num_codebooks: int | None = None,
        bypass: Bool[Tensor, " B"] | None = None,
    ) -> Quantized:
        """Quantizes [B, T, D].

        Args:
            latent: The encoder's.
            levels: int64 [B], codebooks used of each item (quantizer dropout); None: all.
            mask: bool [B, T], False on padding, which counts in no loss.
            num_codebooks: Searches only the first ones.
            bypass: bool [B], items whose latent is handed on unquantized (training), as Mimi does for half of
                them: without it the encoder keeps to the few directions that young codebooks describe well.
        """
        # In fp32 whatever the autocast: codes must not depend on it.
        with torch.autocast(latent.device.type, enabled=False):
            return self._quantize(latent.float(), levels, mask, num_codebooks, bypass)

    def _quantize(
        self,
        latent: Tensor,
        levels: Tensor | None,
        mask: Tensor | None,
        num_codebooks: int | None,
        bypass: Tensor | None,
    ) -> Quantized:
        batch, steps, _ = latent.shape
        count = self.num_codebooks if num_codebooks is None else num_codebooks
        rows_semantic = rows_acoustic = None
        if levels is not None:
            rows_semantic, rows_acoustic = (
                part.repeat_interleave(steps) for part in self.split_levels(levels.to(latent.device))
            )
        weight = latent.new_ones(batch * steps) if mask is None else mask.reshape(-1).to(latent.dtype)

        def stack(part: CodebookStack, x: Tensor, active: Tensor | None, count: int) -> tuple[Tensor, ...]:
            rows = x.reshape(batch * steps, -1)
            found = rvq_search(rows.detach(), part.codebooks[:count])
            loss = ((rows - found.quantized).square().mean(dim=-1) * weight).sum() / weight.sum().clamp_min(1)
            spread = isotropy_loss(rows, weight)
            chosen = found.quantized if active is None else part.lookup(found.codes, active)
            out = (rows + (chosen - rows).detach()).reshape(batch, steps, -1)
            if active is not None:
                # An item that uses no level of this stack must not leak its unquantized latent.
                out = out * (active > 0).reshape(batch, steps, 1)
            if bypass is not None:
                out = torch.where(bypass.reshape(-1, 1, 1), x, out)
            return found.codes, out, loss, spread, rows.detach()

        first_semantic = min(count, self.semantic_codebooks)
        codes_s, semantic, loss_s, spread_s, x_s = stack(
            self.semantic, self.semantic_in(latent), rows_semantic, first_semantic
        )
        out_s = self.semantic_out(semantic)
        if count > first_semantic:
            remainder = latent - out_s.detach()
            codes_a, acoustic, loss_a, spread_a, x_a = stack(
                self.acoustic, self.acoustic_in(remainder), rows_acoustic, count - first_semantic
            )
            heard = self._has_acoustic(rows_acoustic, bypass, batch, steps)
            total = out_s + self.acoustic_out(acoustic) * heard
            codes = torch.cat([codes_s, codes_a], dim=1)
        else:
            total, codes, x_a = out_s, codes_s, x_s[:0]
            loss_a = spread_a = loss_s.new_zeros(())
        return Quantized(
            codes=codes.reshape(batch, steps, -1).transpose(1, 2),
            latent=total,
            semantic=semantic,
            commitment_loss=loss_s + loss_a,
            isotropy_loss=spread_s + spread_a,
            semantic_rows=x_s,
            acoustic_rows=x_a,
        )

    def decode(
        self, codes: Int[Tensor, "B K T"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B T D"]:
        """The latent [B, T, D] of codes [B, K, T] in range; K may be any prefix of the codebooks.

        Args:
            codes: int64.
            dtype: Of the latent and of the products that make it.
        """
        batch, count, steps = codes.shape
        rows = codes.transpose(1, 2).reshape(batch * steps, count)
        first = min(count, self.semantic_codebooks)

        def projected(project: nn.Linear, rows: Tensor) -> Tensor:
            return F.linear(rows.to(dtype), project.weight.to(dtype), project.bias.to(dtype))

        latent = projected(self.semantic_out, self.semantic.lookup(rows[:, :first]))
        if count > first:
            latent = latent + projected(self.acoustic_out, self.acoustic.lookup(rows[:, first:]))
        return latent.reshape(batch, steps, -1)

    @staticmethod
    def _has_acoustic(active: Tensor | None, bypass: Tensor | None, batch: int, steps: int) -> Tensor | float:
        """1 where an item uses the acoustic stack, 0 where even its projection's bias must not be heard."""
        if active is None:
            return 1.0
        used = (active > 0).reshape(batch, steps, 1)
        if bypass is not None:
            used = used | bypass.reshape(-1, 1, 1)
        return used.float()


def isotropy_loss(rows: Float[Tensor, "N D"], weight: Float[Tensor, " N"]) -> Float[Tensor, ""]:
    """Mean squared distance, per dimension, of the rows' covariance from a multiple of the identity.

    0 where all directions vary alike, D - 1 where all rows lie on a line. Left alone, a residual quantizer's
    latents shrink to five or six directions, and codebooks beyond the fourth have nothing to describe.

    Args:
        rows: [N, D].
        weight: [N], 0 on padding.

    Returns:
        Scalar.
    """
    total = weight.sum().clamp_min(1)
    centred = (rows - (rows * weight.unsqueeze(1)).sum(0) / total) * weight.sqrt().unsqueeze(1)
    covariance = centred.T @ centred / total
    scale = covariance.diagonal().mean().clamp_min(1e-8)
    identity = torch.eye(rows.shape[1], device=rows.device)
    return (covariance / scale - identity).square().sum() / rows.shape[1]
