"""Turns before the sequences of a batch, packed for the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from csm.sequences.one_copy import moved
from csm.sequences.turns import TurnFrames
from csm.text import TextCodec


@dataclass
class PastTurns:
    """The P past turns of all S sequences of a batch.

    Attributes:
        text: int64 [W], text ids of all turns.
        text_turn: int64 [W], turn of each text id.
        codes: int64 [F, K], frames of all turns.
        codes_turn: int64 [F], turn of each frame.
        speaker: int64 [P], text id of each turn's speaker.
        sequence: int64 [P], sequence whose memory holds the turn.
        age: int64 [P], turns between this one and its sequence, 0 for the newest.
        learns: bool [P], whether gradients pass through the turn.
        counts: int64 [S], turns in the memory of each sequence.
        text_count, frame_count: float32 [P, 1], text ids and frames of each turn, 1 at least.
    """

    text: Tensor
    text_turn: Tensor
    codes: Tensor
    codes_turn: Tensor
    speaker: Tensor
    sequence: Tensor
    age: Tensor
    learns: Tensor
    counts: Tensor
    text_count: Tensor
    frame_count: Tensor

    def to(self, device: torch.device) -> PastTurns:
        """Returns the same turns on a device."""
        return moved(self, device)


def pack_past(
    past: Sequence[Sequence[TurnFrames]],
    codec: TextCodec,
    num_codebooks: int,
    gradient_turns: int | None = None,
) -> PastTurns:
    """Packs the past of every sequence for the memory.

    Args:
        past: Turns before each sequence, oldest first.
        codec: Text codec.
        num_codebooks: Number of codebooks kept of each turn.
        gradient_turns: Number of newest turns of each sequence that gradients pass through; None: all.

    Raises:
        ValueError: A turn has no voice frames.
    """
    text: list[Tensor] = []
    codes: list[Tensor] = []
    sequence, age, speakers = [], [], []
    for index, turns in enumerate(past):
        for place, turn in enumerate(turns):
            if turn.codes.shape[-1] == 0:
                raise ValueError(
                    f"turn {turn.id} has no voice frames: expected at least one in a turn before the sequence"
                )
            # A turn that was never transcribed enters the memory by its voice and an empty text.
            ids = (
                codec.encode_turn(turn.text, turn.speaker)
                if turn.text.strip()
                else codec.listen_prefix(turn.speaker)
            )
            text.append(torch.tensor(ids))
            codes.append(turn.codes[:num_codebooks].T.long().cpu())
            speakers.append(codec.speaker_id(turn.speaker))
            sequence.append(index)
            age.append(len(turns) - 1 - place)

    def owners(parts: list[Tensor]) -> Tensor:
        sizes = torch.tensor([len(part) for part in parts], dtype=torch.int64)
        return torch.repeat_interleave(torch.arange(len(parts)), sizes)

    def sizes(parts: list[Tensor]) -> Tensor:
        return torch.tensor([max(1, len(part)) for part in parts], dtype=torch.float32).unsqueeze(1)

    return PastTurns(
        text=torch.cat(text) if text else torch.zeros(0, dtype=torch.int64),
        text_turn=owners(text),
        codes=torch.cat(codes) if codes else torch.zeros(0, num_codebooks, dtype=torch.int64),
        codes_turn=owners(codes),
        speaker=torch.tensor(speakers, dtype=torch.int64),
        sequence=torch.tensor(sequence, dtype=torch.int64),
        age=torch.tensor(age, dtype=torch.int64),
        learns=torch.tensor(
            [gradient_turns is None or turns < gradient_turns for turns in age], dtype=torch.bool
        ),
        counts=torch.tensor([len(turns) for turns in past], dtype=torch.int64),
        text_count=sizes(text),
        frame_count=sizes(codes),
    )
