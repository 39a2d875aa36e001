"""A frame's latent as a whole, once its first code is known, and how far such latents lie from their mean."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

# A direction that the model knows nothing of is all but constant in what it predicts: no gain helps there.
LARGEST_GAIN = 3.0


class LatentSpread(NamedTuple):
    """How recorded latents are spread beside predicted ones.

    Attributes:
        mean: float32 [L], of the predicted ones.
        gain: float32 [L], standard deviation of the recorded ones over that of the predicted ones, 1 to
            LARGEST_GAIN.
    """

    mean: Tensor
    gain: Tensor


def latent_spread(recorded: Float[Tensor, "F L"], predicted: Float[Tensor, "F L"]) -> LatentSpread:
    """What of the spread of recorded latents their predictions lack, which are means of what may come."""
    lacks = recorded.std(dim=0, correction=0) / predicted.std(dim=0, correction=0).clamp_min(1e-12)
    return LatentSpread(predicted.mean(dim=0), lacks.clamp(1.0, LARGEST_GAIN))


class LatentRefiner(nn.Module):
    """What a frame's first code changes of its mean latent.

    Many things may come next and their mean is none of them; the first code says which it is, and the mean of
    what is like that is sharp.

    Args:
        width: Of the backbone's rows and the codes' embeddings.
        latent_dim: Of the latent.
    """

    def __init__(self, width: int, latent_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * width, 2 * width)
        self.out = nn.Linear(2 * width, latent_dim)

    def forward(self, row: Float[Tensor, "F D"], first: Float[Tensor, "F D"]) -> Float[Tensor, "F L"]:
        """Added to the mean before the first code.

        Args:
            row: Of the backbone. first: Embedding of the first code.
        """
        return self.out(F.silu(self.hidden(torch.cat([row, first], dim=-1))))
