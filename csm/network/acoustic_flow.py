"""Acoustic latents of frames, sampled by a flow.

A predicted latent is a mean over all that may follow, and a mean sounds dull. A flow samples: it moves noise
along a learned velocity field to a latent (Lipman et al. 2023, Flow Matching for Generative Modeling).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from csm.network.initialise import draw, zero
from csm.network.layers import RMSNorm

#: Steps by which sampling follows the velocity field.
STEPS = 8
_TIME_WAVES, _LAYERS = 16, 3
# Halves of the backbone's width that make up the flow's.
_WIDENED = 3


class AcousticFlow(nn.Module):
    """Samples what the acoustic codebooks add to a frame's latent, given its semantic codes.

    It reads the backbone's rows and the codes' embeddings without passing a gradient to them: how much of the
    model is spent on words does not depend on it.

    Args:
        width: Width of the backbone's rows and of the codes' embeddings.
        latent: Width of the latent that it samples.

    Attributes:
        spread: [latent], standard deviation of each dimension; of `set_spread`, not of the state dict.
    """

    spread: Tensor

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        hidden = _WIDENED * width // 2
        self.noisy = nn.Linear(latent, hidden)
        self.row = nn.Linear(width, hidden, bias=False)
        self.codes = nn.Linear(width, hidden, bias=False)
        self.time = nn.Linear(2 * _TIME_WAVES, hidden)
        self.blocks = nn.ModuleList(_FlowBlock(hidden) for _ in range(_LAYERS))
        self.norm = RMSNorm(hidden)
        self.out = nn.Linear(hidden, latent)
        self.register_buffer("spread", torch.ones(latent), persistent=False)

    def reset_parameters(self) -> None:
        """Draws the initial weights, deviation by width; the velocity starts at zero."""
        for layer in (self.noisy, self.row, self.codes, self.time):
            draw(layer, std=layer.in_features**-0.5)
        for block in self.blocks:
            assert isinstance(block, _FlowBlock)
            block.reset_parameters()
        zero(self.out)

    def set_spread(self, vectors: Float[Tensor, "K V L"]) -> None:
        """Sets the deviation of latents from the vectors of the codes that add up to them.

        Exact for codebooks whose codes are equally frequent and independent.
        """
        self.spread = vectors.float().var(dim=1, correction=0).sum(dim=0).sqrt().clamp_min(1e-6)

    def error(
        self,
        row: Float[Tensor, "F D"],
        codes: Float[Tensor, "F D"],
        latent: Float[Tensor, "F L"],
    ) -> Float[Tensor, " F"]:
        """Returns the squared error of the velocity at a random place between noise and latent.

        It is a mean over the latent's dimensions. In eval mode places and noise are the same at every call.

        Args:
            row: Rows of the backbone before the frames.
            codes: Sums of the embeddings of the frames' semantic codes.
            latent: What the frames' acoustic codes add up to.
        """
        target = latent.float() / self.spread
        # In eval mode from a generator of its own: a validation changes no other random number.
        seeded = None if self.training else torch.Generator().manual_seed(0)
        where = target.device if seeded is None else torch.device("cpu")
        noise = torch.randn(target.shape, generator=seeded, device=where).to(target.device)
        place = torch.randn(len(target), 1, generator=seeded, device=where).to(target.device).sigmoid()
        velocity = self.velocity(torch.lerp(noise, target, place), place, self.condition(row, codes))
        return (velocity.float() - (target - noise)).square().mean(dim=1)

    @torch.no_grad()
    def sample(
        self, row: Float[Tensor, "F D"], codes: Float[Tensor, "F D"], noise: Float[Tensor, "F L"]
    ) -> Float[Tensor, "F L"]:
        """Returns latents that noise is moved to, by Euler's method.

        Args:
            row: Rows of the backbone before the frames.
            codes: Sums of the embeddings of the frames' semantic codes.
            noise: Normal noise; scaled down, samples lie nearer to the most probable ones.
        """
        condition, latent = self.condition(row, codes), noise
        for step in range(STEPS):
            place = torch.full_like(noise[:, :1], step / STEPS)
            latent = latent + self.velocity(latent, place, condition).float() / STEPS
        return latent * self.spread

    def condition(self, row: Float[Tensor, "F D"], codes: Float[Tensor, "F D"]) -> Float[Tensor, "F H"]:
        """Returns what the velocity depends on beside latent and place."""
        codes = F.rms_norm(codes.float(), codes.shape[-1:]).to(row.dtype)
        return self.row(row) + self.codes(codes)

    def velocity(
        self, latent: Float[Tensor, "F L"], place: Float[Tensor, "F 1"], condition: Float[Tensor, "F H"]
    ) -> Float[Tensor, "F L"]:
        """Returns the velocity at latents in units of `spread`, place 0 (noise) to 1 (latent)."""
        waves = torch.arange(1, _TIME_WAVES + 1, device=place.device) * (math.pi / 2) * place
        time = self.time(torch.cat([waves.cos(), waves.sin()], dim=1).to(condition.dtype))
        condition = condition + time
        x = self.noisy(latent.to(condition.dtype))
        for block in self.blocks:
            x = block(x, condition)
        return self.out(self.norm(x))


class _FlowBlock(nn.Module):
    """A residual layer: normalised, condition added, expanded to twice its width and back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = RMSNorm(width)
        self.condition = nn.Linear(width, width, bias=False)
        self.expand = nn.Linear(width, 2 * width)
        self.contract = nn.Linear(2 * width, width)

    def reset_parameters(self) -> None:
        for layer in (self.condition, self.expand):
            draw(layer, std=layer.in_features**-0.5)
        zero(self.contract)

    def forward(self, x: Float[Tensor, "F H"], condition: Float[Tensor, "F H"]) -> Float[Tensor, "F H"]:
        hidden = F.silu(self.expand(self.norm(x) + self.condition(F.silu(condition))))
        return x + self.contract(hidden)
