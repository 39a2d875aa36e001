"""Losses of the discriminators, and of a tokenizer that is trained against them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def discriminator_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Float[Tensor, ""]:
    """Returns the hinge loss of the discriminators, mean over discriminators.

    Args:
        real, fake: Outputs of `Discriminators` for originals and for decoded audio.

    Returns:
        Scalar: 0 where every output is above 1 on real and below -1 on fake audio.
    """
    terms = [
        F.relu(1 - r[-1].float()).mean() + F.relu(1 + f[-1].float()).mean()
        for r, f in zip(real, fake, strict=True)
    ]
    return torch.stack(terms).mean()


def adversarial_loss(fake: list[list[Tensor]]) -> Float[Tensor, ""]:
    """Returns the decoder's hinge loss, mean over discriminators: 0 where every output is above 1."""
    return torch.stack([F.relu(1 - maps[-1].float()).mean() for maps in fake]).mean()


def feature_matching_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Float[Tensor, ""]:
    """Returns the L1 distance of feature maps relative to their size on real audio, mean over all maps."""
    terms = [
        (f.float() - r.detach().float()).abs().mean() / r.detach().float().abs().mean().clamp_min(1e-3)
        for real_maps, fake_maps in zip(real, fake, strict=True)
        for r, f in zip(real_maps[:-1], fake_maps[:-1], strict=True)
    ]
    return torch.stack(terms).mean()


def balanced_adversarial_loss(
    features: Float[Tensor, "B T C"],
    spectral: Float[Tensor, ""],
    adversarial: Float[Tensor, ""],
    ratio: float,
) -> Float[Tensor, ""]:
    """Returns a loss whose gradient at `features` has `ratio` times the norm of the spectral gradient.

    Only its gradient is meaningful, not its value. Source: the loss balancer of EnCodec (Defossez et al.
    2022, section 3.4), with two differences. Norms are those of this step instead of an average over steps,
    so that no state has to be kept. And gradients are balanced before the decoder's head instead of at the
    waveform: there most of the spectral losses' gradient lies in quiet bins and hardly reaches the
    parameters, so that the adversarial gradient would dominate (docs/LOG.md).

    Args:
        features: Input of the decoder's head, or the predicted features of a vocoder, [B, T, C], on which
            both losses depend.
        spectral: Scalar; its graph is kept for the step's own backward.
        adversarial: Scalar; its graph is kept too.
        ratio: Ratio of the norms, above 0.

    Returns:
        Scalar.
    """
    (from_spectral,) = torch.autograd.grad(spectral, features, retain_graph=True)
    (from_adversarial,) = torch.autograd.grad(adversarial, features, retain_graph=True)
    scale = ratio * from_spectral.norm() / from_adversarial.norm().clamp_min(1e-12)
    return (features * (from_adversarial * scale).detach()).sum()
