"""A turn of a conversation: what is said, by which speaker, and its frames of codes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

#: Frames per second of csm-1b's and the project's tokenizers.
FRAMES_PER_SECOND = 12.5


class TurnFrames(NamedTuple):
    """A turn ready to become rows.

    Attributes:
        id: Turn id.
        text: Text of the turn.
        speaker: Speaker index.
        codes: Integers [K, T], codes of the frames; T may be 0 for a turn about to be spoken.
        prosody: float32 [T, 3], log-F0 (0 where unvoiced), voicing and log energy of the frames; None if
            unknown.
        ends: float32 [L], frame at which each id of the codec's `encode_turn` ends, the last one with the
            voice; None if unknown: the ids then last equally long.
    """

    id: str
    text: str
    speaker: int
    codes: Tensor
    prosody: Tensor | None = None
    ends: Tensor | None = None
