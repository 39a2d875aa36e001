"""How generation chooses a code from its logits: by sampling, or as a caller decides."""

from __future__ import annotations

from typing import Protocol

from jaxtyping import Bool, Float, Int
from torch import Tensor


class NextCode(Protocol):
    """Chooses one code; a session calls it for every codebook of every frame, in order."""

    def __call__(
        self, logits: Float[Tensor, " V"], codebook: int, allowed: Bool[Tensor, " V"]
    ) -> Int[Tensor, ""]:
        """Returns the code, on the device of the logits.

        Args:
            logits: Logits of the codebook's vocabulary, before anything is ruled out.
            codebook: Index of the codebook; 0 begins a frame.
            allowed: Codes that sampling would choose from.
        """
        ...
