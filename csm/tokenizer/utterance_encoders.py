"""Utterance embeddings: of the speaker and of the manner of speaking."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


class UtteranceEncoder(nn.Module):
    """Log magnitudes of an utterance to one embedding, by attentive mean and deviation over time.

    The class serves as the speaker encoder, trained to classify speakers, and as the emotion encoder. Without
    emotion labels, as in the packaged corpus, the latter is a style embedding, trained to predict the
    utterance's prosody statistics (pitch, its range, voicing, energy, its range, duration). Source of the
    pooling: Okabe et al. 2018, Attentive Statistics Pooling.

    Args:
        feature_width: Number of STFT bins C.
        width: Width of the hidden layers.
        embedding_width: Width of the embedding E.
        stack: STFT frames that form one input row.
    """

    def __init__(self, feature_width: int, width: int, embedding_width: int, *, stack: int = 3) -> None:
        super().__init__()
        self.stack = stack
        self.embed = nn.Linear(feature_width * stack, width)
        self.blocks = nn.ModuleList(nn.Conv1d(width, width, 5, padding=2) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.attention = nn.Linear(width, 1)
        self.project = nn.Linear(2 * width, embedding_width)

    def forward(
        self, features: Float[Tensor, "B T C"], mask: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B E"]:
        """Returns embeddings [B, E] of unit length.

        Args:
            features: Log magnitudes [B, T, C]; frames beyond a multiple of `stack` are ignored.
            mask: True on the utterance and False on padding, [B, T]. None: no padding.
        """
        batch, steps, width = features.shape
        rows = steps // self.stack
        x = F.gelu(self.embed(features[:, : rows * self.stack].reshape(batch, rows, width * self.stack)))
        keep = features.new_ones(batch, rows, dtype=torch.bool)
        if mask is not None:
            keep = mask[:, : rows * self.stack : self.stack]
        for conv, norm in zip(self.blocks, self.norms, strict=True):
            # Padding is zeroed before every convolution, so that results do not depend on the batch.
            x = x * keep.unsqueeze(-1)
            x = x + F.gelu(conv(norm(x).mul(keep.unsqueeze(-1)).transpose(1, 2)).transpose(1, 2))
        weights = self.attention(x).float().masked_fill(~keep.unsqueeze(-1), float("-inf")).softmax(dim=1)
        x = x.float()
        mean = (weights * x).sum(dim=1)
        deviation = (weights * (x - mean.unsqueeze(1)).square()).sum(dim=1).clamp_min(1e-6).sqrt()
        return F.normalize(self.project(torch.cat([mean, deviation], dim=-1)).float(), dim=-1)
