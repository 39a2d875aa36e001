"""The predicted duration of each text id of a turn, before the turn is spoken."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from csm.network.initialise import draw, zero
from csm.network.layers import PackedSequences, near_rows
from csm.network.running_sum import running_sum

WIDTH = 128
# Log frames: half a minute, beyond any id.
MOST = 6.0


class PhoneDurationHead(nn.Module):
    """Log frames of every text id, from the backbone's rows of the turn's text.

    The backbone's row of an id depends on the speaker and all ids before it; two layers over five neighbours
    add the next four. The last layer starts at zero and stays there if no training text is aligned.

    Args:
        width: Width of the backbone's rows.
    """

    NEIGHBOURS = 5

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mixes = nn.ModuleList(nn.Linear(self.NEIGHBOURS * size, WIDTH) for size in (width, WIDTH))
        self.pace = nn.Linear(WIDTH, 1)

    def reset_parameters(self) -> None:
        """Draws the initial weights; the last layer starts at zero."""
        draw(*self.mixes)
        zero(self.pace)

    def forward(self, hidden: Float[Tensor, "M D"], layout: PackedSequences) -> Float[Tensor, " M"]:
        """Returns log frames of each row; `layout` gives the rows of each text."""
        for mix in self.mixes:
            hidden = F.silu(mix(near_rows(hidden, layout, self.NEIGHBOURS)))
        return self.pace(hidden)[:, 0]

    def is_trained(self) -> bool:
        """Returns whether the head predicts anything."""
        return bool(self.pace.weight.any())


def frames_of_ids(log_frames: Float[Tensor, " L"]) -> float:
    """Returns the frames of a turn's ids together; the first id marks the turn's begin and lasts no time."""
    return float(log_frames[1:].clamp(max=MOST).exp().sum())


def text_ends(log_frames: Float[Tensor, " L"], length: float) -> Float[Tensor, " L"]:
    """Returns the frame at which each text id ends, with durations scaled to add up to `length` frames.

    Args:
        log_frames: Log frames of the ids; the first id marks the turn's begin and lasts no time.
        length: Frame at which the last id ends.
    """
    spent = log_frames.clamp(max=MOST).exp()
    spent[0] = 0
    ends = running_sum(spent, 0)
    ends = ends * (length / ends[-1].clamp_min(torch.finfo(ends.dtype).tiny))
    ends[-1] = length
    return ends
