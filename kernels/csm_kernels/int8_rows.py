"""Matrices as 8-bit integers with a scale per row, for products with fp32 vectors."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Int8Rows(NamedTuple):
    """Matrices [..., out, in] as integers times a scale per row.

    Attributes:
        values: Integers int8 [..., out, in]; `of` makes -127 to 127.
        scale: Scale of each row, fp32 [..., out].
    """

    values: Tensor
    scale: Tensor

    @classmethod
    def of(cls, matrix: Tensor) -> Int8Rows:
        """Divides every row by its largest magnitude / 127 and rounds it."""
        matrix = matrix.detach().float()
        scale = matrix.abs().amax(-1) / 127
        # A row of zeros has scale 0: any divisor does.
        values = (matrix / scale.where(scale > 0, 1.0).unsqueeze(-1)).round().to(torch.int8)
        return cls(values.contiguous(), scale.contiguous())

    def restored(self) -> Tensor:
        """Returns the fp32 matrices [..., out, in] that products are computed with."""
        return self.values.float() * self.scale.unsqueeze(-1)
