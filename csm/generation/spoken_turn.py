"""A turn while it is spoken: it gives the row that comes next, and its driver runs that row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from csm.generation.sampling import SamplingConfig
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


class TurnPlan(NamedTuple):
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

    @classmethod
    def of(cls, model: ConversationNetwork, text: str, speaker: int, frames: int | None) -> TurnPlan:
        """Checks what a session is asked to say.

        Raises:
            ValueError: The text is empty or too long for the context, the speaker is unknown, or fewer than 1
                frame is expected.
        """
        ids = model.codec.encode_turn(text, speaker)
        if frames is not None and frames < 1:
            raise ValueError(f"frames is {frames}: expected at least 1, or None for the model's prediction")
        # The text, one frame and the end row.
        if len(ids) + 2 > model.config.max_context:
            raise ValueError(
                f"the text has {len(ids)} ids, max_context is {model.config.max_context} rows: split it "
                f"into sentences"
            )
        return cls(text, speaker, torch.tensor(ids, device=model.audio_embedding.weight.device), frames)


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


class DeviceSteps(Protocol):
    """Computes frames and rows of turns on a device; see `csm.generation.static_turns.StaticTurns`."""

    def next_frames(self, turns: Sequence[SpokenTurn]) -> list[Int[Tensor, " K"] | None]:
        """Returns the next frame of each of these turns, or None where it ends."""
        ...

    def run(self, turns: Sequence[SpokenTurn]) -> None:
        """Runs the next row of each of these turns."""
        ...

    def end(self, turn: SpokenTurn) -> None:
        """Gives a turn's rows back to its session."""
        ...

    def drop(self, turn: SpokenTurn) -> None:
        """Forgets a turn that cannot be ended."""
        ...


@dataclass(kw_only=True, eq=False)
class SpokenTurn:
    """A turn between its text and its end row.

    The rows of its frames and the end row go through the backbone one by one. The cache alone counts how many
    have been run, so that a driver may be interrupted anywhere and resume from there.

    Attributes:
        plan: What is spoken.
        model, cache, memory: Parts of the session.
        reading: What voice rows read of the text; None in a model without cross-attention.
        hidden: [D], backbone output at the newest row; the next frame is predicted from it.
        expected: Frames that the text is stretched over.
        ends: float32 [L], frame at which each text id ends; None: all ids last equally long.
        shortest: Frames before which the turn does not end.
        limit: Frames at which the turn is cut off.
        sampling, generator: How codes are sampled, of the session.
        said: Frames so far, int64 [K] each.
        ended: Why the turn ended; None while it is spoken.
        steps: What computes the turn's frames and rows on a device; None: its driver does.
        unread: Cache of the same rows without what they read of the text; None without guidance.
    """

    plan: TurnPlan
    model: ConversationNetwork
    cache: KeyValueCache
    memory: MemoryState | None
    reading: VoiceReading | None
    hidden: Float[Tensor, " D"]
    expected: int
    shortest: float
    limit: int
    sampling: SamplingConfig
    generator: torch.Generator
    ends: Tensor | None = None
    said: list[Tensor] = field(default_factory=list)
    ended: Ending | None = None
    steps: DeviceSteps | None = None
    unread: KeyValueCache | None = None

    def __post_init__(self) -> None:
        self._text_end = self.cache.length

    @property
    def may_end(self) -> bool:
        """Whether the turn may end with the frames so far."""
        return len(self.said) >= self.shortest

    @property
    def at_limit(self) -> bool:
        """Whether the turn is cut off after the frames so far."""
        return len(self.said) >= self.limit

    @property
    def rows_run(self) -> int:
        """Rows of frames, and the end row, that have been run."""
        return self.cache.length - self._text_end

    @property
    def rows_left(self) -> int:
        """Rows to be run if the turn ends with the frames so far: 2, 1 (the end row), or 0 (none)."""
        return len(self.said) + 1 - self.rows_run

    def next_codes(self) -> Int[Tensor, " K"]:
        """Returns the codes of the next row: of the newest frame; once that has been run, of the end row."""
        assert self.rows_left, "the turn has had its end row"
        if self.rows_run < len(self.said):
            return self.said[self.rows_run]
        return torch.full((self.model.config.num_codebooks,), self.model.config.end_code)

    def next_rows(self) -> tuple[NextRow, ...]:
        """Returns the row of `next_codes` with what it reads, and in a guided turn the same row without."""
        codes, device = self.next_codes().to(self.hidden.device), self.hidden.device
        row = self.model.embed_rows(torch.full((1,), -1, device=device), codes.unsqueeze(0))
        reading = None if self.reading is None else self.reading.step(self.rows_run + 1)
        rows = (NextRow(row, self.cache, reading, self.memory),)
        return rows if self.unread is None else (*rows, NextRow(row, self.unread, None, self.memory))

    def guided(
        self, read: Float[Tensor, " D"], unread: Float[Tensor, " D"] | None = None
    ) -> Float[Tensor, " D"]:
        """Returns what the next frame is predicted from, of the hidden rows of `next_rows`."""
        return read if unread is None else guided_rows(read, unread, self.sampling.guidance)

    def say(self, frame: Int[Tensor, " K"]) -> Int[Tensor, " K"]:
        """Appends a frame, and returns it on the CPU."""
        self.said.append(frame)
        return frame if frame.device.type == "cpu" else frame.cpu()

    def cut(self, frames: int) -> None:
        """Forgets all but the first frames, and the rows after theirs; the turn has not ended then."""
        del self.said[frames:]
        # Rows attend to earlier rows alone: what the cache holds of the frames before stays valid.
        self.cache.length = min(self.cache.length, self._text_end + frames)
        if self.unread is not None:
            self.unread.length = self.cache.length
        self.ended = None

    def codes(self) -> Int[Tensor, "K T"]:
        """Returns the codes of the frames so far, on the CPU; T may be 0."""
        empty = torch.zeros(self.model.config.num_codebooks, 0, dtype=torch.int64)
        return torch.stack(self.said, dim=1).cpu() if self.said else empty


def guided_rows(
    read: Float[Tensor, "*B D"], unread: Float[Tensor, "*B D"], guidance: float | Float[Tensor, "*B 1"]
) -> Float[Tensor, "*B D"]:
    """Returns hidden rows moved away from those of the same model without its reading of the text.

    Classifier-free guidance (Ho & Salimans 2022), with a weaker model instead of one without a condition. A
    row keeps its length: otherwise codes would be drawn as at a lower temperature, and latents would be
    larger than any of the training's.

    Args:
        read: Rows that read the text. unread: The same rows without.
        guidance: 0 leaves a row as it is.
    """
    full, other = read.float(), unread.float()
    moved = full + guidance * (full - other)
    length = full.norm(dim=-1, keepdim=True) / moved.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    return (moved * length).to(read.dtype)


def read_text(
    model: ConversationNetwork, plan: TurnPlan, length: int, ends: Float[Tensor, " L"] | None = None
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
