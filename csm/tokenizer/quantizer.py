"""The semantic / acoustic split: a first stack of codebooks trained to carry text, a second for the rest."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from csm.tokenizer.codebook import CodebookStack
from csm.tokenizer.latent_prediction import LatentPrediction, linear
from csm_kernels import rvq_search


class Quantized(NamedTuple):
    """Outputs of the quantizer.

    Attributes:
        codes: Codes int64 [B, K, T].
        latent: Sum of both stacks' vectors, projected back, [B, T, D]; straight-through gradient, none to a
            prediction that acoustic codes follow.
        semantic: Sum of the semantic vectors, [B, T, C]; straight-through gradient.
        commitment_loss: Mean squared distance of the projections from their code vectors, a scalar.
        isotropy_loss: Unevenness of the projections' covariance, a scalar; see `isotropy_loss`.
        prediction_loss: Share of the variance of the latent's acoustic projection, which gets no gradient of
            it, that its prediction from the semantic sums leaves, a scalar; without a semantic encoder, of
            the latent's variance.
        semantic_rows, acoustic_rows: Quantized rows [N, C], detached, for the codebook update.
    """

    codes: Tensor
    latent: Tensor
    semantic: Tensor
    commitment_loss: Tensor
    isotropy_loss: Tensor
    prediction_loss: Tensor
    semantic_rows: Tensor
    acoustic_rows: Tensor


class SplitQuantizer(nn.Module):
    """Two residual stacks in a row, each in its own projection.

    Without a semantic encoder the semantic stack quantizes a projection of the encoder's latent, and the
    acoustic one a projection of the residual that it leaves. With one (`csm.tokenizer.semantic`) the semantic
    stack quantizes the rows of that encoder, and the acoustic one what a prediction from the semantic sums
    leaves of the latent's acoustic projection. Every prefix of the codes can be decoded.

    Args:
        width: Width D of the encoder's latent.
        num_codebooks: Number of codebooks K; the first `semantic_codebooks` form the semantic stack.
        semantic_codebooks: Codebooks of the semantic stack, 1 to num_codebooks - 1.
        codebook_size, codebook_dim: Vectors per codebook, and their width C.
        acoustic_dim: Width of the acoustic stack's vectors. 0: C.
        semantic_encoder: Whether `forward` is given the semantic stack's rows.
        prediction_frames, prediction_hidden: Window and hidden layer of `LatentPrediction`.
    """

    semantic_in: nn.Linear | None

    def __init__(
        self,
        width: int,
        num_codebooks: int,
        semantic_codebooks: int,
        codebook_size: int,
        codebook_dim: int,
        *,
        acoustic_dim: int = 0,
        semantic_encoder: bool = False,
        prediction_frames: int = 1,
        prediction_hidden: int = 0,
    ) -> None:
        super().__init__()
        self.num_codebooks, self.semantic_codebooks = num_codebooks, semantic_codebooks
        acoustic_dim = acoustic_dim or codebook_dim
        self.semantic = CodebookStack(semantic_codebooks, codebook_size, codebook_dim)
        self.acoustic = CodebookStack(num_codebooks - semantic_codebooks, codebook_size, acoustic_dim)
        self.semantic_in = None if semantic_encoder else nn.Linear(width, codebook_dim)
        self.semantic_out = LatentPrediction(
            codebook_dim,
            acoustic_dim if semantic_encoder else width,
            frames=prediction_frames,
            hidden=prediction_hidden,
        )
        self.acoustic_in = nn.Linear(width, acoustic_dim)
        self.acoustic_out = nn.Linear(acoustic_dim, width)

    @property
    def predicts(self) -> bool:
        """Whether semantic codes, of an encoder of their own, predict the latent's acoustic projection."""
        return self.semantic_in is None

    @torch.no_grad()
    def fit(
        self,
        latent: Float[Tensor, "N D"],
        generator: torch.Generator,
        *,
        keep: bool = False,
        predicted: Float[Tensor, "N C"] | None = None,
    ) -> None:
        """Sets codebooks by k-means of latents [N, D]; see `CodebookStack.fit`.

        Args:
            latent: Latents of the encoder.
            generator: Random generator on the CPU.
            keep: Whether k-means starts at the present vectors.
            predicted: What the semantic encoder's codes predict of their acoustic projections; its codebooks
                stay as they are. None: the semantic codebooks are fitted too.
        """
        if predicted is None:
            assert self.semantic_in is not None
            quantized = self.semantic.fit(self.semantic_in(latent), generator, keep=keep)
            rows = self.acoustic_in(latent - self.semantic_out(quantized))
        else:
            rows = self.acoustic_in(latent) - predicted
        self.acoustic.fit(rows, generator, keep=keep)

    def semantic_sums(self, rows: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        """Returns the sums of the code vectors of the semantic encoder's rows [B, T, C]."""
        found = rvq_search(rows.float().flatten(0, 1), self.semantic.codebooks)
        return found.quantized.reshape(rows.shape)

    def predicted_projection(self, rows: Float[Tensor, "B T C"]) -> Float[Tensor, "B T A"]:
        """Returns the latent's acoustic projection as the codes of the semantic encoder's rows predict it."""
        predicted: Tensor = self.semantic_out(self.semantic_sums(rows))
        return predicted

    def split_levels(self, levels: Int[Tensor, " B"]) -> tuple[Int[Tensor, " B"], Int[Tensor, " B"]]:
        """Returns the levels of each stack that the first `levels` codebooks use."""
        semantic = levels.clamp(max=self.semantic_codebooks)
        return semantic, (levels - self.semantic_codebooks).clamp(min=0)

    def forward(
        self,
        latent: Float[Tensor, "B T D"],
        levels: Int[Tensor, " B"] | None = None,
        mask: Tensor | None = None,
        num_codebooks: int | None = None,
        bypass: Bool[Tensor, " B"] | None = None,
        semantic: Float[Tensor, "B T C"] | None = None,
    ) -> Quantized:
        """Quantizes [B, T, D].

        Args:
            latent: Latent of the encoder.
            levels: Codebooks used of each item (quantizer dropout), int64 [B]. None: all.
            mask: False on padding, which counts in no loss, bool [B, T]. None: no padding.
            num_codebooks: Codebooks to search, a prefix. None: all.
            bypass: Items whose latent is passed on unquantized in training, bool [B]. Mimi does so for half
                of them: without it the encoder uses only the few directions that untrained codebooks describe
                well. None: no item.
            semantic: Rows of the semantic encoder, where there is one.
        """
        # In fp32 under any autocast: codes must not depend on it.
        with torch.autocast(latent.device.type, enabled=False):
            latent = latent.float()
            if self.semantic_in is None:
                assert semantic is not None
                rows = semantic.float()
            else:
                rows = self.semantic_in(latent)
            return self._quantize(latent, rows, levels, mask, num_codebooks, bypass)

    def _quantize(
        self,
        latent: Tensor,
        semantic_input: Tensor,
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
            uneven = isotropy_loss(rows, weight)
            chosen = found.quantized if active is None else part.lookup(found.codes, active)
            out = (rows + (chosen - rows).detach()).reshape(batch, steps, -1)
            if active is not None:
                # An item that uses no level of this stack must not pass on its unquantized latent.
                out = out * (active > 0).reshape(batch, steps, 1)
            if bypass is not None:
                out = torch.where(bypass.reshape(-1, 1, 1), x, out)
            return found.codes, out, loss, uneven, rows.detach()

        first_semantic = min(count, self.semantic_codebooks)
        codes_s, semantic, loss_s, uneven_s, x_s = stack(
            self.semantic, semantic_input, rows_semantic, first_semantic
        )
        out_s = self.semantic_out(semantic)
        goal = self.acoustic_in(latent) if self.predicts else latent
        missed = unexplained_share(goal.detach(), out_s, weight)
        if count > first_semantic:
            left = goal - out_s.detach()
            codes_a, acoustic, loss_a, uneven_a, x_a = stack(
                self.acoustic,
                left if self.predicts else self.acoustic_in(left),
                rows_acoustic,
                count - first_semantic,
            )
            used = self._has_acoustic(rows_acoustic, bypass, batch, steps)
            if self.predicts:
                # Acoustic codes make up for any change of the prediction, so that the decoder's gradient asks
                # for the same one again and drives the prediction away: only its own loss moves it there.
                predicted = out_s.detach() * used + out_s * (1.0 - used)
                total = self.acoustic_out(predicted + acoustic * used)
            else:
                total = out_s + self.acoustic_out(acoustic) * used
            codes = torch.cat([codes_s, codes_a], dim=1)
        else:
            total = self.acoustic_out(out_s) if self.predicts else out_s
            codes, x_a = codes_s, x_s[:0]
            loss_a = uneven_a = loss_s.new_zeros(())
        return Quantized(
            codes=codes.reshape(batch, steps, -1).transpose(1, 2),
            latent=total,
            semantic=semantic,
            commitment_loss=loss_s + loss_a,
            isotropy_loss=uneven_s + uneven_a,
            prediction_loss=missed,
            semantic_rows=x_s,
            acoustic_rows=x_a,
        )

    def decode(
        self, codes: Int[Tensor, "B K T"], dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "B T D"]:
        """Returns the latent [B, T, D] of codes [B, K, T] in range; K may be any prefix of the codebooks.

        Args:
            codes: int64 [B, K, T].
            dtype: Precision of the projections and of the latent.
        """
        batch, count, steps = codes.shape
        rows = codes.transpose(1, 2).reshape(batch * steps, count)
        first = min(count, self.semantic_codebooks)

        sums = self.semantic.lookup(rows[:, :first]).to(dtype)
        latent = self.semantic_out(sums.reshape(batch, steps, -1), decoding=True)
        acoustic = self.acoustic.lookup(rows[:, first:]).to(dtype).reshape(batch, steps, -1)
        if self.predicts:
            return linear(self.acoustic_out, latent + acoustic)
        return latent + linear(self.acoustic_out, acoustic) if count > first else latent

    @staticmethod
    def _has_acoustic(active: Tensor | None, bypass: Tensor | None, batch: int, steps: int) -> Tensor | float:
        """Returns 1 where an item uses the acoustic stack, 0 where not even the projection's bias counts."""
        if active is None:
            return 1.0
        used = (active > 0).reshape(batch, steps, 1)
        if bypass is not None:
            used = used | bypass.reshape(-1, 1, 1)
        return used.float()


def unexplained_share(
    goal: Float[Tensor, "B T D"], predicted: Float[Tensor, "B T D"], weight: Float[Tensor, " N"]
) -> Float[Tensor, ""]:
    """Returns the share of the variance of `goal` over all frames that `predicted` leaves; 1 for its mean.

    Args:
        goal: What is predicted, [B, T, D].
        predicted: Its prediction.
        weight: Weight of each frame, [B T], 0 on padding.
    """
    rows, shares = goal.flatten(0, 1), weight.unsqueeze(1) / weight.sum().clamp_min(1)
    variance = ((rows - (rows * shares).sum(dim=0)).square() * shares).sum()
    left: Tensor = ((rows - predicted.flatten(0, 1)).square() * shares).sum()
    return left / variance.clamp_min(1e-8)


def isotropy_loss(rows: Float[Tensor, "N D"], weight: Float[Tensor, " N"]) -> Float[Tensor, ""]:
    """Returns the mean squared distance, per dimension, of the rows' covariance from a multiple of identity.

    Without a penalty, a residual quantizer that starts at random vectors reduces its latents to five or six
    directions, and codebooks after the fourth have no residual to describe.

    Args:
        rows: Rows [N, D].
        weight: Weight of each row, [N], 0 on padding.

    Returns:
        Scalar: 0 where all directions have equal variance, D - 1 where all rows lie on a line.
    """
    total = weight.sum().clamp_min(1)
    centred = (rows - (rows * weight.unsqueeze(1)).sum(0) / total) * weight.sqrt().unsqueeze(1)
    covariance = centred.T @ centred / total
    scale = covariance.diagonal().mean().clamp_min(1e-8)
    identity = torch.eye(rows.shape[1], device=rows.device)
    return (covariance / scale - identity).square().sum() / rows.shape[1]
