"""The specification of rvq_search in plain PyTorch, for any float dtype and device.

At each level of a residual quantizer every row chooses the nearest vector of that level's codebook, subtracts
it, and passes the residual to the next level. The kernels choose the same codes.
"""

import torch
from torch import Tensor


def search(x: Tensor, codebooks: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `csm_kernels.rvq_search`; x [N, D] and codebooks [Q, V, D] have one dtype."""
    residual, quantized = x.clone(), torch.zeros_like(x)
    codes, commitment = [], []
    rows = torch.ones_like(x[:, 0], dtype=torch.bool) if mask is None else mask
    for codebook in codebooks:
        # |r|^2 is the same for every candidate: leaving it out saves a rounding.
        scores = 0.5 * codebook.square().sum(1) - residual @ codebook.T
        chosen = scores.argmin(1)
        residual = residual - codebook[chosen]
        quantized = quantized + codebook[chosen]
        codes.append(chosen)
        squares = residual.double().square().sum(1)
        commitment.append(torch.where(rows, squares, 0.0).sum() / (rows.sum() * x.shape[1]).clamp(min=1))
    return torch.stack(codes, 1), quantized, residual, torch.stack(commitment).to(x.dtype)
