"""A turn while it is spoken: it gives the row that comes next, and its driver runs that row."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csm.network.conversation_network import ConversationNetwork
from csm.network.layers import KeyValueCache
from csm.network.memory import MemoryState
from csm.network.voice_reading import VoiceReading
from csm.sequences.packed_batch import VoiceSpan
from csm.sequences.turns import TurnFrames

# Why a turn ended: the model chose the end code, it reached its limit, or its consumer stopped it.
Ending = Literal["end_code", "limit", "stopped"]


class ContextTurn(NamedTuple):
    """A turn in the exact context: its frames, and the frames that its text was stretched over."""

    turn: TurnFrames
    length: int


class PlannedTurn(NamedTuple):
    """A turn that was checked and can be spoken.

    Attributes:
        text: Text of the turn.
        speaker: Speaker index.
        ids: int64 [L], text ids of the turn's rows.
        frames: Expected length in frames; None uses the model's prediction.
    """

    text: str
    speaker: int
    ids: Tensor
    frames: int | None


class NextRow(NamedTuple):
    """A row to be run, and all that the backbone needs for it.

    Attributes:
        row: [1, D], embedded row.
        cache: Cache of its conversation: the row comes after those that it holds.
        reading: What the row reads of its turn's text; None in a model without cross-attention.
        memory: Memory of its conversation; None in a model without memory layers.
    """

    row: Float[Tensor, "1 D"]
    cache: KeyValueCache
    reading: VoiceReading | None
    memory: MemoryState | None


@dataclass(kw_only=True, eq=False)
class SpokenTurn:
    """A turn between its text and its end row.

    The rows of its frames and the end row go through the backbone one by one. The cache alone counts how many
    have been run, so that a driver may be interrupted anywhere and resume from there.

    Attributes:
        plan: What is spoken.
        model, cache, memory: Parts of the session.
        reading: What voice rows read of the text; None in a model without cross-attention.
        hidden: [D], hidden row of the newest row: the next frame is predicted from it.
        expected: Frames that the text is stretched over.
        ends: float32 [L], frame at which each text id ends; None: all ids last equally long.
        shortest: Frames before which the turn does not end.
        limit: Frames at which the turn is cut off.
        said: Frames so far, int64 [K] each.
        ended: Why the turn ended; None while it is spoken.
    """

    plan: PlannedTurn
    model: ConversationNetwork
    cache: KeyValueCache
    memory: MemoryState | None
    reading: VoiceReading | None
    hidden: Float[Tensor, " D"]
    expected: int
    shortest: float
    limit: int
    ends: Tensor | None = None
    said: list[Tensor] = field(default_factory=list)
    ended: Ending | None = None

    def __post_init__(self) -> None:
        self._text_end = self.cache.length

    @property
    def rows_left(self) -> int:
        """Rows to be run if the turn ends with the frames so far: 2, 1 (the end row), or 0 (none)."""
        return len(self.said) + 1 - (self.cache.length - self._text_end)

    def next_row(self) -> NextRow:
        """Returns the row of the newest frame; once that has been run, the end row."""
        assert self.rows_left, "the turn has had its end row"
        place = self.cache.length - self._text_end + 1
        config, device = self.model.config, self.hidden.device
        if place <= len(self.said):
            frame = self.said[place - 1]
        else:
            frame = torch.full((config.num_codebooks,), config.end_code, device=device)
        row = self.model.embed_rows(torch.full((1,), -1, device=device), frame.unsqueeze(0))
        reading = None if self.reading is None else self.reading.step(place)
        return NextRow(row, self.cache, reading, self.memory)

    def cut(self, frames: int) -> None:
        """Forgets all but the first frames, and the rows after theirs; the turn has not ended then."""
        del self.said[frames:]
        # Rows attend to earlier rows alone: what the cache holds of the frames before stays valid.
        self.cache.length = min(self.cache.length, self._text_end + frames)
        self.ended = None

    def codes(self) -> Int[Tensor, "K T"]:
        """Returns the codes of the frames so far, on the CPU; T may be 0."""
        empty = torch.zeros(self.model.config.num_codebooks, 0, dtype=torch.int64)
        return torch.stack(self.said, dim=1).cpu() if self.said else empty


def read_text(
    model: ConversationNetwork, plan: PlannedTurn, length: int, ends: Float[Tensor, " L"] | None = None
) -> VoiceReading | None:
    """Returns what voice rows to come read of a text that is stretched over `length` frames.

    Args:
        model: Network of the session.
        plan: Turn to be spoken.
        length: Expected frames of the turn.
        ends: Frame at which each text id ends; None: all ids last equally long.
    """
    speaker = model.codec.speaker_id(plan.speaker)
    span = VoiceSpan(0, 1, 0, len(plan.ids), length, ends=ends, speaker=speaker)
    return model.voice_reading(model.text_embedding(plan.ids), [span])
