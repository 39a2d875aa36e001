"""How a corpus uses the codebooks: share of codes that occur, perplexity, and dead codes."""

from __future__ import annotations

from typing import TypedDict

import torch
from jaxtyping import Float, Int
from torch import Tensor


class CodebookStatistics(TypedDict):
    """Statistics of every codebook, as codebooks.json holds them.

    Attributes:
        codebook_size: Codes of a codebook.
        frames: Frames that were counted.
        usage: Share of codes that occur, 0 to 1, one number per codebook.
        perplexity: 2 to the entropy in bits, 1 to codebook_size, one number per codebook.
        dead: Codes that never occur, one number per codebook.
    """

    codebook_size: int
    frames: int
    usage: list[float]
    perplexity: list[float]
    dead: list[int]


def perplexity(counts: Float[Tensor, "*N V"]) -> Float[Tensor, "*N"]:
    """Returns 2 to the entropy in bits of V codes that occur `counts` times, or with such weights."""
    share = counts / counts.sum(dim=-1, keepdim=True)
    return torch.special.entr(share).sum(dim=-1).exp()


def codebook_statistics(codes: Int[Tensor, "B K T"], codebook_size: int) -> CodebookStatistics:
    """Counts the codes of every codebook.

    Args:
        codes: int64 [B, K, T].
        codebook_size: Codes of a codebook.

    Raises:
        ValueError: The codes have another shape, or are out of range.
    """
    if codes.ndim != 3 or codes.numel() == 0:
        raise ValueError(f"codes have shape {tuple(codes.shape)}: expected [batch, codebooks, frames]")
    low, high = int(codes.min()), int(codes.max())
    if low < 0 or high >= codebook_size:
        raise ValueError(f"codes range over {low}..{high}: expected 0..{codebook_size - 1}")
    rows = codes.cpu().transpose(0, 1).flatten(1)
    counts = torch.stack([torch.bincount(row, minlength=codebook_size) for row in rows]).double()
    occurs = counts > 0
    return CodebookStatistics(
        codebook_size=codebook_size,
        frames=rows.shape[1],
        usage=occurs.double().mean(dim=1).tolist(),
        perplexity=perplexity(counts).tolist(),
        dead=(~occurs).sum(dim=1).tolist(),
    )
