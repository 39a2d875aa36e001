"""Which text ids each frame of a turn is made of, in sub-frames of 20 ms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from csm.sequences.one_copy import moved
from csm.sequences.packed_batch import VoiceSpan

# Sub-frames (20 ms) per codec frame (80 ms), so that a phone boundary inside a frame is represented.
SUBFRAMES = 4


class TextFrameAlignment(NamedTuple):
    """Sparse matrix from the text ids of several turns to the sub-frames of their frames.

    Attributes:
        subframes: int64 [n], sub-frame of each entry, counted over the frames of all turns.
        ids: int64 [n], text id of each entry, counted over the ids of all turns.
        shares: float32 [n, 1], share of the sub-frame that the text id takes; those of a sub-frame sum to 1.
        frames: Number of frames of all turns.
    """

    subframes: Tensor
    ids: Tensor
    shares: Tensor
    frames: int

    @classmethod
    def pack(cls, spans: Sequence[VoiceSpan]) -> TextFrameAlignment:
        """Returns the alignment of the turns of these spans, end to end.

        A turn whose ends are unknown gets one frame per text id, which the attention then resamples.
        """
        subframes, ids, shares = [], [], []
        first_frame = first_id = 0
        for span in spans:
            share = _shares(span)
            at = share.nonzero()
            subframes.append(at[:, 0] + first_frame * SUBFRAMES)
            ids.append(at[:, 1] + first_id)
            shares.append(share[at[:, 0], at[:, 1]].unsqueeze(1))
            first_frame, first_id = first_frame + len(share) // SUBFRAMES, first_id + span.num_keys
        return cls(torch.cat(subframes), torch.cat(ids), torch.cat(shares), first_frame)

    def to(self, device: torch.device) -> TextFrameAlignment:
        """Returns the same alignment on a device."""
        return moved(self, device)

    def __call__(self, rows: Float[Tensor, "M D"]) -> Float[Tensor, "F SD"]:
        """Returns the rows that each frame is made of: the mixtures of its sub-frames, side by side."""
        # Not index_select: an id has several sub-frames, and its gradient on CUDA would add in any order.
        parts = rows[self.ids] * self.shares.to(rows.dtype)
        mixed = rows.new_zeros(self.frames * SUBFRAMES, rows.shape[1])
        return mixed.index_add(0, self.subframes, parts).view(self.frames, -1)


def _shares(span: VoiceSpan) -> Float[Tensor, "S M"]:
    """Returns the share of each sub-frame of a turn that each of its text ids takes."""
    if span.ends is None:
        return torch.eye(span.num_keys).repeat_interleave(SUBFRAMES, 0)
    ends = span.ends.float().clamp(max=span.length) * SUBFRAMES
    begins = F.pad(ends[:-1], (1, 0))
    subframe = torch.arange(span.length * SUBFRAMES).unsqueeze(1)
    share = (ends.minimum(subframe + 1) - begins.maximum(subframe)).clamp_min(0)
    return share / share.sum(dim=1, keepdim=True).clamp_min(1e-6)
