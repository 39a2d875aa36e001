"""The predicted latent: the tokenizer's latent of the next frame as a whole, predicted by the backbone.

The depth decoder reads the residual: the sum of the codes so far minus the predicted latent, both embedded.
Generation may take the later codes of a frame by residual search of the latent. Its parameters lie in the
network under names of their own (`latent_head`, `latent_embedding`, `latent_refiner`, `latent_mean`,
`latent_gain`), so that state dicts keep them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from csm.network.initialise import draw, zero
from csm_kernels import rvq_search

# Cap on the gain: where predictions are nearly constant, scaling adds only noise.
LARGEST_GAIN = 3.0


class VarianceRestoration(NamedTuple):
    """Statistics that give predicted latents the variance of recorded ones.

    Attributes:
        mean: float32 [L], mean of predicted latents.
        gain: float32 [L], standard deviation of recorded latents over that of predicted ones, 1 to
            LARGEST_GAIN.
    """

    mean: Tensor
    gain: Tensor


def variance_restoration(
    recorded: Float[Tensor, "F L"], predicted: Float[Tensor, "F L"]
) -> VarianceRestoration:
    """Measures the ratio of recorded to predicted standard deviation of each dimension.

    Predictions are conditional means and vary less than recordings.
    """
    lacks = recorded.std(dim=0, correction=0) / predicted.std(dim=0, correction=0).clamp_min(1e-12)
    return VarianceRestoration(predicted.mean(dim=0), lacks.clamp(1.0, LARGEST_GAIN))


def latent_vectors(vectors: Float[Tensor, "K V D"]) -> Float[Tensor, "K V D"]:
    """Returns a tokenizer's code vectors without their means, in units of the deviation of codebook 0."""
    centred = vectors.float() - vectors.float().mean(dim=1, keepdim=True)
    return centred / norms(centred)[0]


def norms(vectors: Float[Tensor, "K V D"]) -> Float[Tensor, "K 1 1"]:
    """Returns the root mean square of the norms of each codebook's vectors."""
    return vectors.square().sum(dim=2, keepdim=True).mean(dim=1, keepdim=True).sqrt().clamp_min(1e-12)


class ResidualLatentHead(nn.Module):
    """What code 0 of a frame adds to the frame's predicted latent.

    Before code 0 the prediction is a mean over very different frames, given code 0 one over similar frames.

    Args:
        width: Width of the backbone's rows and of the codes' embeddings.
        latent_dim: Width of the latent.
    """

    def __init__(self, width: int, latent_dim: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(2 * width, 2 * width)
        self.out = nn.Linear(2 * width, latent_dim)

    def reset_parameters(self) -> None:
        """Draws the initial weights; the last layer starts at zero."""
        draw(self.hidden)
        zero(self.out)

    def forward(self, row: Float[Tensor, "F D"], code0: Float[Tensor, "F D"]) -> Float[Tensor, "F L"]:
        """Returns what is added to the latent predicted from the backbone's rows.

        Args:
            row: Rows of the backbone.
            code0: Embeddings of code 0 of the frames that follow.
        """
        return self.out(F.silu(self.hidden(torch.cat([row, code0], dim=-1))))


@dataclass(frozen=True, eq=False)
class PredictedLatent:
    """The parts of a network that predict and use the latent; they are the network's own, not copies.

    Attributes:
        head: Linear map of the backbone's row to the latent of the next frame.
        embedding: Linear map of a latent to the width of the codes' embeddings.
        residual_head: Head of what code 0 adds.
        mean, gain: [L], as of VarianceRestoration.
        code_vectors: float32 [K, V, L], what each code adds to a latent (`latent_vectors`); None in a model
            that was read from a folder without its tokenizer.
    """

    head: nn.Linear
    embedding: nn.Linear
    residual_head: ResidualLatentHead
    mean: Tensor
    gain: Tensor
    code_vectors: Tensor | None

    def reset_parameters(self) -> None:
        """Draws the initial weights; both heads start at zero."""
        zero(self.head)
        draw(self.embedding)
        self.residual_head.reset_parameters()

    def subtract(self, row: Float[Tensor, "*F D"], hidden: Float[Tensor, "*F D"]) -> Float[Tensor, "*F D"]:
        """Returns the rows less the embedding of the latent that the hidden rows predict."""
        return row - self.embedding(self.head(hidden))

    def given_code0(self, hidden: Float[Tensor, "F D"], code0: Float[Tensor, "F D"]) -> Float[Tensor, "F L"]:
        """Returns the predicted latent of frames given the embedding of their code 0."""
        return self.head(hidden) + self.residual_head(hidden, code0)

    @torch.no_grad()
    def set_variance_restoration(self, statistics: VarianceRestoration) -> None:
        """Takes over statistics that were measured after training.

        Raises:
            ValueError: They are of latents of another width.
        """
        if statistics.mean.shape != self.mean.shape:
            raise ValueError(
                f"variance restoration is of latents of width {len(statistics.mean)}: expected "
                f"{len(self.mean)}; measure it with this model"
            )
        self.mean.copy_(statistics.mean)
        self.gain.copy_(statistics.gain)

    def restore_variance(self, latent: Float[Tensor, "F L"], share: float) -> Float[Tensor, "F L"]:
        """Returns predicted latents with a share, 0 to 1, of the variance that they lack."""
        if not share:
            return latent
        return self.mean + self.gain**share * (latent - self.mean)

    def nearest_codes(self, latent: Float[Tensor, "F L"], code0: Int[Tensor, " F"]) -> Int[Tensor, "F K"]:
        """Returns the frames that begin with `code0`, their later codes by residual search of the latents.

        Raises:
            ValueError: The model has no code vectors.
        """
        if self.code_vectors is None:
            raise ValueError(
                "sampling.later_codes is 'nearest' and the model has no code vectors: expected the tokenizer "
                "in tokenizer/ in or beside the folder that the model is read from; or use 'sampled'"
            )
        rest = rvq_search((latent - self.code_vectors[0, code0]).float(), self.code_vectors[1:])
        return torch.cat([code0.unsqueeze(1), rest.codes.to(code0.device)], dim=1)
