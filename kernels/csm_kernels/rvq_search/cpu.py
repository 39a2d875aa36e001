"""rvq_search by the compiled kernel of cpu.cpp."""

import torch
from torch import Tensor

from csm_kernels.native import integer, kernel, pointer, threads


def search(
    x: Tensor, codebooks: Tensor, mask: Tensor | None, instruction_set: str | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """See `csm_kernels.rvq_search`; x [N, D] and codebooks [Q, V, D] are fp32.

    Args:
        x: Rows.
        codebooks: Codes.
        mask: Rows that count in the commitment.
        instruction_set: See `native.kernel`. AVX2 and AVX-512 give the same bits; the base lacks their fused
            multiply-add.
    """
    (rows, width), (levels, size, _) = x.shape, codebooks.shape
    residual = x.clone(memory_format=torch.contiguous_format)
    quantized = torch.zeros_like(residual)
    codes = torch.empty(rows, levels, dtype=torch.int64)
    squares = torch.empty(rows, levels, dtype=torch.float64)
    tables = codebooks.contiguous()
    if rows:
        kernel("rvq_search", instruction_set)(
            pointer(tables),
            *map(integer, (rows, size, width, levels)),
            threads(),
            *map(pointer, (codes, quantized, residual, squares)),
        )
    if mask is None:
        commitment = squares.sum(0) / max(rows * width, 1)
    else:
        commitment = torch.where(mask[:, None], squares, 0.0).sum(0) / (mask.sum() * width).clamp(min=1)
    return codes, quantized, residual, commitment.to(x.dtype)
