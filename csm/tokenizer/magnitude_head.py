"""The decoder's hidden states to the compressed STFT magnitudes that phases are recovered for."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from csm.tokenizer.spectrum import COMPRESSION, MAGNITUDE_FLOOR

# Four times the largest bin of a full-scale sine at 588 samples.
MAX_MAGNITUDE = 150.0


class MagnitudeHead(nn.Module):
    """All STFT frames of a codec frame by one linear map, corrected frame by frame from the finer states.

    The linear map can start at the principal components of speech spectra, which already is a codec
    (`csm.tokenizer.training.principal_components`); the blocks then learn a correction to it.

    Args:
        frame_width: Width of the hidden states at the frame rate.
        width: Width of the hidden states at the STFT rate.
        bins: STFT bins.
        hops_per_frame: STFT frames per codec frame.
        contrast: Factor by which decoded magnitudes are moved away from their mean over `neighbours` bins. A
            regression predicts uncertain magnitudes too flat, which sounds dull. 1 changes nothing.
        neighbours: Bins of that mean, an odd number.
    """

    def __init__(
        self,
        frame_width: int,
        width: int,
        bins: int,
        hops_per_frame: int,
        *,
        contrast: float = 1.0,
        neighbours: int = 49,
    ) -> None:
        super().__init__()
        self.hops_per_frame = hops_per_frame
        self.contrast, self.neighbours = contrast, neighbours
        self.frame = nn.Linear(frame_width, hops_per_frame * bins)
        self.correction = nn.Linear(width, bins, bias=False)

    def forward(
        self, frames: Float[Tensor, "B T W"], features: Float[Tensor, "B T2 C"]
    ) -> Float[Tensor, "B T2 N"]:
        """Returns magnitudes [B, T2, bins] to the power COMPRESSION, as training compares them."""
        with torch.autocast(frames.device.type, enabled=False):
            frames, features = (x if x.dtype == torch.float64 else x.float() for x in (frames, features))
            whole = self.frame(frames).unflatten(-1, (self.hops_per_frame, -1)).flatten(1, 2)
            return whole + self.correction(features)

    def linear_magnitudes(
        self, compressed: Float[Tensor, "B T2 N"], contrast: float | None = None
    ) -> Float[Tensor, "B T2 N"]:
        """Returns linear magnitudes [B, T2, bins] of compressed ones, contrasted within a frame."""
        contrast = self.contrast if contrast is None else contrast
        if contrast != 1:
            rows = compressed.flatten(0, 1).unsqueeze(1)
            half = self.neighbours // 2
            mean = F.avg_pool1d(rows, self.neighbours, 1, half, count_include_pad=False)
            compressed = (mean + contrast * (rows - mean)).view_as(compressed)
        return magnitudes(compressed)


def magnitudes(compressed: Float[Tensor, "*N"]) -> Float[Tensor, "*N"]:
    """Returns linear magnitudes of compressed ones, from MAGNITUDE_FLOOR to MAX_MAGNITUDE."""
    bounds = MAGNITUDE_FLOOR**COMPRESSION, MAX_MAGNITUDE**COMPRESSION
    return compressed.clamp(*bounds).pow(1 / COMPRESSION)
