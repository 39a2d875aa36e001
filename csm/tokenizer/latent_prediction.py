"""Prediction of acoustic latents from the semantic codes of the present and of a few past frames."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class PredictionPast(NamedTuple):
    """Sums of code vectors before the next frame on each side of the tokenizer, [B, frames - 1, C]."""

    encoding: Tensor
    decoding: Tensor


class LatentPrediction(nn.Linear):
    """A linear map of a causal window of frames, and on top of it a perceptron of one hidden layer.

    Acoustic codebooks quantize what this prediction leaves of the latent. It reads sums of semantic code
    vectors alone, so that encoder and decoder predict alike from any prefix of the codebooks, and all frames
    of a signal are quantized at once. With one frame and no hidden layer it is `nn.Linear`.

    Each side of the tokenizer has a past of its own inside `csm.tokenizer.layers.streaming`.

    Args:
        codebook_dim: Width C of the sums of code vectors.
        width: Width D of the latent.
        frames: Frames of the window, the present one included.
        hidden: Width of the hidden layer. 0: none.
    """

    def __init__(self, codebook_dim: int, width: int, *, frames: int = 1, hidden: int = 0) -> None:
        super().__init__(frames * codebook_dim, width)
        self.codebook_dim, self.frames = codebook_dim, frames
        self.expand = nn.Linear(frames * codebook_dim, hidden) if hidden else None
        self.contract = nn.Linear(hidden, width) if hidden else None
        if self.contract is not None:
            nn.init.zeros_(self.contract.weight)
            nn.init.zeros_(self.contract.bias)
        self.stream_state: PredictionPast | None = None

    def initial_state(self, batch_size: int) -> PredictionPast:
        """Returns the silence before the signal."""
        zeros = self.weight.new_zeros(batch_size, self.frames - 1, self.codebook_dim)
        return PredictionPast(zeros, zeros)

    def forward(self, x: Float[Tensor, "B T C"], *, decoding: bool = False) -> Float[Tensor, "B T D"]:
        """Predicts the latent in the dtype of the sums.

        Args:
            x: Sums of semantic code vectors, [B, T, C].
            decoding: Which side's past precedes `x` inside `streaming`.
        """
        return self.predicted(self.windows(x, decoding=decoding))

    def windows(self, x: Float[Tensor, "B T C"], *, decoding: bool = False) -> Float[Tensor, "B T W"]:
        """Returns each frame's window [B, T, frames * C], oldest frame first, zeros before the signal."""
        if self.frames == 1:
            return x
        if self.stream_state is None:
            padded = F.pad(x, (0, 0, self.frames - 1, 0))
        else:
            past = self.stream_state.decoding if decoding else self.stream_state.encoding
            padded = torch.cat([past.to(x.dtype), x], dim=1)
            new = padded[:, padded.shape[1] - self.frames + 1 :].detach()
            side = "decoding" if decoding else "encoding"
            self.stream_state = self.stream_state._replace(**{side: new})
        return torch.cat([padded[:, first : first + x.shape[1]] for first in range(self.frames)], dim=-1)

    def predicted(self, windows: Float[Tensor, "B T W"]) -> Float[Tensor, "B T D"]:
        """Maps windows [B, T, frames * C] to latents [B, T, D]."""
        latent = linear(self, windows)
        if self.expand is not None and self.contract is not None:
            hidden = F.gelu(linear(self.expand, windows), approximate="tanh")
            latent = latent + linear(self.contract, hidden)
        return latent


def linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Applies a layer in the precision of its input."""
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


def fit_prediction(
    prediction: LatentPrediction,
    windows: Float[Tensor, "N W"],
    latents: Float[Tensor, "N D"],
    generator: torch.Generator,
    *,
    steps: int = 1000,
    rows: int = 512,
    learning_rate: float = 2e-3,
) -> None:
    """Fits a prediction to frames, in place: least squares for the linear map, then Adam for the whole.

    Args:
        prediction: Prediction to fit.
        windows: Its inputs, [N, frames * C].
        latents: Its targets, [N, D].
        generator: Random generator on the CPU, which draws the rows of each step.
        steps, rows, learning_rate: Of Adam, where there is a hidden layer; the rate falls to zero linearly.
    """
    _fit_linear(prediction, windows, latents)
    if prediction.expand is None:
        return
    optimizer = torch.optim.AdamW(prediction.parameters(), lr=learning_rate, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    with torch.enable_grad():
        for _ in range(steps):
            chosen = torch.randint(len(windows), (rows,), generator=generator).to(windows.device)
            optimizer.zero_grad()
            F.mse_loss(prediction.predicted(windows[chosen]), latents[chosen]).backward()
            optimizer.step()
            schedule.step()
    prediction.zero_grad()


@torch.no_grad()
def _fit_linear(prediction: LatentPrediction, windows: Tensor, latents: Tensor) -> None:
    """Sets the linear map to the least-squares prediction, with a small ridge."""
    x = windows.double()
    mean, target = x.mean(dim=0), latents.double().mean(dim=0)
    centred = x - mean
    # A ridge of a thousandth of the variance: directions that no code uses have none.
    ridge = 1e-3 * centred.square().mean() * len(centred)
    gram = centred.T @ centred + ridge * torch.eye(centred.shape[1], dtype=torch.float64, device=x.device)
    weight = torch.linalg.solve(gram, centred.T @ (latents.double() - target)).T
    prediction.weight.copy_(weight)
    prediction.bias.copy_(target - weight @ mean)
