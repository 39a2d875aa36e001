"""The decoder's hidden states to the compressed STFT magnitudes that phases are then recovered for."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from csm.tokenizer.spectrum import COMPRESSION, MAGNITUDE_FLOOR

# Four times the largest bin of a full-scale sine at 588 samples.
MAX_MAGNITUDE = 150.0


class MagnitudeHead(nn.Module):
    """All STFT frames of a codec frame by one linear map, corrected frame by frame from the finer states.

    The linear map can start at the principal components of speech's spectra
    (`csm.tokenizer.principal_components`), which is a codec already; what the blocks learn comes on top.

    Args:
        frame_width: Of the states at the frame rate.
        width: Of those at the STFT rate.
        bins: STFT bins.
        hops_per_frame: STFT frames per codec frame.
    """

    def __init__(self, frame_width: int, width: int, bins: int, hops_per_frame: int) -> None:
        super().__init__()
        self.hops_per_frame = hops_per_frame
        self.frame = nn.Linear(frame_width, hops_per_frame * bins)
        self.correction = nn.Linear(width, bins, bias=False)

    def forward(
        self, frames: Float[Tensor, "B T W"], features: Float[Tensor, "B T2 C"]
    ) -> Float[Tensor, "B T2 N"]:
        """Magnitudes [B, T2, bins] to the power COMPRESSION; those below 0 stand for silence."""
        with torch.autocast(frames.device.type, enabled=False):
            frames, features = (x if x.dtype == torch.float64 else x.float() for x in (frames, features))
            whole = self.frame(frames).unflatten(-1, (self.hops_per_frame, -1)).flatten(1, 2)
            return whole + self.correction(features)


def magnitudes(compressed: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Linear magnitudes of compressed ones, from MAGNITUDE_FLOOR to MAX_MAGNITUDE."""
    bounds = MAGNITUDE_FLOOR**COMPRESSION, MAX_MAGNITUDE**COMPRESSION
    return compressed.clamp(*bounds).pow(1 / COMPRESSION)
