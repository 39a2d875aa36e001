"""rvq_search in plain torch, blocked so that a row's bits depend on nothing but the row.

A matrix product may round differently for another number of rows. Here every product has one shape,
[ROWS, D] x [D, V]: the rows are padded with zeros to a multiple of ROWS, so neither the batch size nor a
row's place in the batch reaches the codes. A chunk of tiles runs through all levels while it is in cache.
"""

import torch
from torch import Tensor

ROWS = 32  # rows of one product: small enough for one streamed frame, 80 % of a large product's speed
TILES = 8  # products of one call: 256 rows x 1024 codes of scores are 1 MB, the size of an L2 cache
TILES_ON_GPU = 256
GROUP = 64  # codes of one group in the two-stage argmin


def _first_smallest(scores: Tensor) -> Tensor:
    """The lowest index of the smallest score, scores [M, G, GROUP] -> [M, 1].

    torch's argmin is scalar code and costs a third of the product; amin is vectorised. The first group that
    holds the minimum holds its first occurrence, so the tie rule survives.
    """
    group = scores.amin(2).argmin(1, keepdim=True)
    inside = scores.gather(1, group.unsqueeze(2).expand(-1, 1, GROUP)).squeeze(1).argmin(1, keepdim=True)
    return group * GROUP + inside


def search(x: Tensor, codebooks: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `csm_kernels.rvq_search`; x [N, D] and codebooks [Q, V, D] have one dtype."""
    (rows, width), (levels, size, _) = x.shape, codebooks.shape
    spare = -size % GROUP  # codes that no row chooses: zeros with an infinite norm
    tables = torch.nn.functional.pad(codebooks, (0, 0, 0, spare)) if spare else codebooks
    half_norms = torch.nn.functional.pad(0.5 * codebooks.square().sum(2), (0, spare), value=torch.inf)
    transposed = tables.transpose(1, 2)

    residual = x.new_zeros(-(-rows // ROWS) * ROWS, width)
    residual[:rows] = x
    quantized = torch.zeros_like(residual)
    codes = torch.empty(residual.shape[0], levels, dtype=torch.int64, device=x.device)
    squares = torch.empty(residual.shape[0], levels, dtype=torch.float64, device=x.device)
    chunk = ROWS * (TILES if x.device.type == "cpu" else TILES_ON_GPU)
    for start in range(0, residual.shape[0], chunk):
        r, total = residual[start : start + chunk], quantized[start : start + chunk]
        tiles = r.view(-1, ROWS, width)
        scores = r.new_empty(tiles.shape[0], ROWS, size + spare)
        for level in range(levels):
            torch.bmm(tiles, transposed[level].expand(tiles.shape[0], -1, -1), out=scores)
            torch.sub(half_norms[level], scores, out=scores)
            chosen = _first_smallest(scores.view(r.shape[0], -1, GROUP)).squeeze(1)
            chosen.clamp_(max=size - 1)  # a spare code of zeros scores NaN in a row with an infinite value
            code = tables[level].index_select(0, chosen)
            r.sub_(code)
            total.add_(code)
            codes[start : start + chunk, level] = chosen
            squares[start : start + chunk, level] = r.square().sum(1, dtype=torch.float64)
    counted = squares[:rows]
    if mask is None:
        commitment = counted.sum(0) / max(rows * width, 1)
    else:
        commitment = torch.where(mask[:, None], counted, 0.0).sum(0) / (mask.sum() * width).clamp(min=1)
    return codes[:rows], quantized[:rows], residual[:rows], commitment.to(x.dtype)
