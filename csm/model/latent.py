"""A frame's latent as a whole, once its first code is known."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


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
