"""A packed batch of rows: what each row holds, what it predicts, and which rows read which.

A turn that is spoken: begin, speaker, text, end | voice frames | one end row. A turn that is transcribed:
listen, speaker | voice frames | one end row | text, end. A batch packs sequences of turns end to end.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from csm.sequences.one_copy import moved
from csm.sequences.past_turns import PastTurns
from csm.sequences.target_rows import IGNORE, TargetRows, target_rows

__all__ = ["IGNORE", "RowBatch", "TextSpan", "VoiceSpan"]


class VoiceSpan(NamedTuple):
    """Voice rows of one spoken turn, which read the turn's text locally.

    Attributes:
        first_query, num_queries: Voice rows that read.
        first_key, num_keys: Text rows that are read.
        length: Frames that the text is stretched over.
        ends: float32 [num_keys], frame at which each text id ends, the last one at `length`; None: all ids
            last equally long.
        speaker: Text id of the turn's speaker, -1 if unknown.
    """

    first_query: int
    num_queries: int
    first_key: int
    num_keys: int
    length: int
    ends: Tensor | None = None
    speaker: int = -1


class TextSpan(NamedTuple):
    """Text rows of one transcribed turn, which read the turn's voice globally.

    Attributes:
        first_query, num_queries: Text rows that read, the end row of the voice first.
        first_key, num_keys: Voice rows that are read.
        letters: Letters of the text (`csm.spelling`); none where they are no target.
    """

    first_query: int
    num_queries: int
    first_key: int
    num_keys: int
    letters: tuple[int, ...] = ()


@dataclass
class RowBatch:
    """R rows of S sequences, end to end.

    Attributes:
        ids: Turn ids, for messages.
        text: int64 [R], text id of a text row, -1 on a voice row.
        codes: int64 [R, K], codes of a voice row, -1 on a text row.
        positions: int64 [R], index of each row in its sequence.
        cu_seqlens: int32 [S + 1], starts of the sequences and the total.
        longest: Rows of the longest sequence.
        voice_spans: Voice rows that read the text of their turn, one span per spoken turn.
        text_spans: Text rows that read the voice of their turn, one span per transcribed turn.
        code_target: int64 [R, K], codes of the frame that follows (end codes after the last one) or IGNORE.
        text_target: int64 [R], the text id that follows or IGNORE.
        prosody_target: float32 [R, 3], prosody of the frame that follows.
        prosody_known: bool [R], whether prosody_target holds a measurement.
        duration_target: float32 [R], log frames at the row before a spoken turn's voice, NaN elsewhere.
        pace_target: float32 [R], log frames of each text id of a spoken turn that is aligned, NaN elsewhere.
        past: Turns before each sequence, for the memory.
        voice_count, frame_count, text_count, turn_count, pace_count, letter_count: Number of targets of the
            whole optimizer step divided by its micro-batches, so that losses do not depend on how a step is
            split; None: those of this batch. Voice counts frames and end rows, frame the frames alone.
        depth_rows: int64 [F], rows whose following frame trains the depth decoder; None: all with a frame.
        depth_weight: Frames that each of `depth_rows` stands for; None: the frames of this batch, divided by
            its depth rows.
        layout: Index structures of one model for this batch (`csm.network.batch_layout`), made once on the
            host; None: the model makes them when it is called. A batch that is changed afterwards needs new
            ones.
    """

    ids: list[str]
    text: Tensor
    codes: Tensor
    positions: Tensor
    cu_seqlens: Tensor
    longest: int
    voice_spans: list[VoiceSpan]
    text_spans: list[TextSpan]
    code_target: Tensor
    text_target: Tensor
    prosody_target: Tensor
    prosody_known: Tensor
    duration_target: Tensor
    pace_target: Tensor
    past: PastTurns
    voice_count: float | None = None
    frame_count: float | None = None
    text_count: float | None = None
    turn_count: float | None = None
    pace_count: float | None = None
    letter_count: float | None = None
    depth_rows: Tensor | None = None
    depth_weight: float | None = None
    layout: object | None = None

    def to(self, device: torch.device) -> RowBatch:
        """Returns the same batch on a device, all its tensors in one copy; spans stay on the host."""
        tensors = {k: v for k, v in vars(self).items() if isinstance(v, (Tensor, PastTurns))}
        names = [*tensors, "layout"]
        values = moved([*tensors.values(), self.layout], device)
        changed: dict[str, Any] = dict(zip(names, values, strict=True))
        return replace(self, **changed)

    def trained_frames(self) -> Tensor:
        """Returns int64 [F], the rows whose following frame trains the depth decoder."""
        if self.depth_rows is not None:
            return self.depth_rows
        return (self.code_target[:, 1] != IGNORE).nonzero()[:, 0]

    def target_rows(self) -> TargetRows:
        """Returns the rows with targets of each kind, from the layout where there is one."""
        known = getattr(self.layout, "targets", None)
        if isinstance(known, TargetRows):
            return known
        return target_rows(
            self.codes,
            self.code_target,
            self.text_target,
            self.duration_target,
            self.pace_target,
            self.depth_rows,
        )
