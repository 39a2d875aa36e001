"""The decoder's hidden states to the features that a vocoder speaks from."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from csm.tokenizer.vocoder_features import STEPS_PER_FRAME, WIDTH


class FeatureHead(nn.Module):
    """All steps of a codec frame by one linear map, corrected step by step from the finer states.

    The linear map can start at the inverse of the encoder's weighting, which already is a codec
    (`csm.tokenizer.training.feature_start`); the blocks then learn a correction to it.

    Attributes:
        centre, scale: Mean and weight of each feature, [22], as in `FeatureEncoder`.

    Args:
        frame_width: Width of the hidden states at the frame rate.
        width: Width of the hidden states at the rate of the features.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, frame_width: int, width: int) -> None:
        super().__init__()
        self.frame = nn.Linear(frame_width, STEPS_PER_FRAME * WIDTH)
        self.correction = nn.Linear(width, WIDTH, bias=False)
        self.register_buffer("centre", torch.zeros(WIDTH))
        self.register_buffer("scale", torch.ones(WIDTH))

    def forward(
        self, frames: Float[Tensor, "B T W"], features: Float[Tensor, "B T2 C"]
    ) -> Float[Tensor, "B T2 N"]:
        """Returns weighted features [B, T2, 22], as training compares them."""
        with torch.autocast(frames.device.type, enabled=False):
            frames, features = (x if x.dtype == torch.float64 else x.float() for x in (frames, features))
            whole = self.frame(frames).unflatten(-1, (STEPS_PER_FRAME, -1)).flatten(1, 2)
            return whole + self.correction(features)

    def unweighted(self, weighted: Float[Tensor, "B T N"]) -> Float[Tensor, "B T N"]:
        """Returns features [B, T, 22] of weighted ones."""
        return weighted / self.scale + self.centre
