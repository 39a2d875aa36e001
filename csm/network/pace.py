"""How long each text id of a turn will last, before it is spoken."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from csm.network.cross_attention import near_rows
from csm.network.layers import PackedSequences

WIDTH = 128
# Log frames: half a minute, beyond any id.
MOST = 6.0


class PaceHead(nn.Module):
    """Log frames of every text id, from the backbone's rows of the turn's text.

    The backbone's row of an id knows the speaker and all before it; two layers over five neighbours show the
    next four.
    The last layer starts at zero and stays there where a model is trained without aligned texts.

    Args:
        width: Of the backbone's rows.
    """

    NEIGHBOURS = 5

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mixes = nn.ModuleList(nn.Linear(self.NEIGHBOURS * size, WIDTH) for size in (width, WIDTH))
        self.pace = nn.Linear(WIDTH, 1)

    def forward(self, hidden: Float[Tensor, "M D"], layout: PackedSequences) -> Float[Tensor, " M"]:
        """Log frames of each row; `layout` says which rows are of one text."""
        for mix in self.mixes:
            hidden = F.silu(mix(near_rows(hidden, layout, self.NEIGHBOURS)))
        return self.pace(hidden)[:, 0]

    def is_trained(self) -> bool:
        """Whether it says anything."""
        return bool(self.pace.weight.any())


def frames_of_ids(log_frames: Float[Tensor, " L"]) -> float:
    """Frames of a turn's ids together, of which the first, the turn's begin, lasts no time."""
    return float(log_frames[1:].clamp(max=MOST).exp().sum())


def text_ends(log_frames: Float[Tensor, " L"], length: float) -> Float[Tensor, " L"]:
    """Where each text id ends on a clock of `length` frames, from how long each lasts in proportion.

    Args:
        log_frames: Of the ids, of which the first, the turn's begin, lasts no time.
        length: Where the last one ends.
    """
    spent = log_frames.clamp(max=MOST).exp()
    spent[0] = 0
    ends = spent.cumsum(0)
    ends = ends * (length / ends[-1].clamp_min(torch.finfo(ends.dtype).tiny))
    ends[-1] = length
    return ends
