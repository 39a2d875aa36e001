"""Which rows of a batch have targets, of each kind: indices that the host makes with the batch."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

IGNORE = -100  # target of a row that predicts nothing


class TargetRows(NamedTuple):
    """Rows with a target; indices are int64 and ascend.

    Attributes:
        voice: [A], rows before a frame or an end row.
        frames: [T], rows before a frame (csm-1b: or an end row, whose zeros all codebooks learn).
        depth: [F], those of `frames` that the depth decoder is trained on.
        text: [L], rows before a transcribed text id.
        duration: [U], rows before a spoken turn's voice.
        pace: [P], text rows of spoken turns that are aligned.
        voice_frames: Number of rows that hold a frame or an end row.
    """

    voice: Tensor
    frames: Tensor
    depth: Tensor
    text: Tensor
    duration: Tensor
    pace: Tensor
    voice_frames: int


def target_rows(
    codes: Tensor,
    code_target: Tensor,
    text_target: Tensor,
    duration_target: Tensor,
    pace_target: Tensor,
    depth_rows: Tensor | None,
) -> TargetRows:
    """Returns the rows with targets of a batch, whose fields these are. It waits for the device, if any."""

    def where(known: Tensor) -> Tensor:
        return known.nonzero()[:, 0]

    frames = where(code_target[:, 1] != IGNORE)
    return TargetRows(
        voice=where(code_target[:, 0] != IGNORE),
        frames=frames,
        depth=frames if depth_rows is None else depth_rows,
        text=where(text_target != IGNORE),
        duration=where(~duration_target.isnan()),
        pace=where(~pace_target.isnan()),
        voice_frames=int((codes[:, 0] >= 0).sum()),
    )
