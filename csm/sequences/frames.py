"""Conversations as rows: text rows and voice rows, what each is to predict, and which rows read which.

A turn that is spoken: begin, speaker, text, end | voice frames | one end row. A turn that is heard and
written: listen, speaker | voice frames | one end row | text, end. A batch packs them end to end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from csm.text import TextCodec

IGNORE = -100
# Frames: what a text id lasts at least where it is to be learned how long it lasts.
SHORTEST = 0.1


class TurnFrames(NamedTuple):
    """A turn ready for the grid.

    Attributes:
        id: Turn id.
        text: What is said.
        speaker: Speaker index.
        codes: int64 [K, T], T may be 0 for a turn about to be spoken.
        prosody: float32 [T, 3] log-F0 (0 where unvoiced), voiced, log energy; None where unknown.
        ends: float32 [L], frame at which each id of the codec's `encode_turn` ends, the last one with the
            voice; None where unknown: the text is then taken to be read at an even pace.
    """

    id: str
    text: str
    speaker: int
    codes: Tensor
    prosody: Tensor | None = None
    ends: Tensor | None = None


class CrossSpan(NamedTuple):
    """Rows of one turn that read the turn's other modality.

    Attributes:
        first_query, num_queries: Rows that read.
        first_key, num_keys: Rows that are read.
        length: Length the keys are resampled to, in steps of the queries' clock.
        voice_reads: True where voice rows read text (locally), False where text rows read voice (globally).
        ends: float32 [num_keys], where each key ends on the queries' clock, the last at `length`; None: all
            last equally long.
        speaker: Text id of whose turn it is, -1 where that is not told.
    """

    first_query: int
    num_queries: int
    first_key: int
    num_keys: int
    length: int
    voice_reads: bool
    ends: Tensor | None = None
    speaker: int = -1


@dataclass
class PastTurns:
    """Turns before the sequences of a batch, packed, for the memory; P turns in all.

    Attributes:
        text: int64 [W], ids of all turns; text_turn: int64 [W], turn of each.
        codes: int64 [F, K], frames of all turns; codes_turn: int64 [F], turn of each.
        speaker: int64 [P], text id of each turn's speaker.
        sequence: int64 [P], which sequence remembers the turn; age: int64 [P], 0 for the newest.
        learns: bool [P], whether the gradient of what is read passes through the turn.
        counts: int64 [S], turns each sequence remembers.
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

    def to(self, device: torch.device) -> PastTurns:
        """The same turns on a device."""
        return PastTurns(*(getattr(self, field.name).to(device) for field in fields(self)))


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
        num_codebooks: Codebooks kept of each turn.
        gradient_turns: Newest turns of each sequence that gradients pass through; None: all.

    Raises:
        ValueError: A turn without voice frames.
    """
    text: list[Tensor] = []
    codes: list[Tensor] = []
    sequence, age, speakers = [], [], []
    for index, turns in enumerate(past):
        for place, turn in enumerate(turns):
            if turn.codes.shape[-1] == 0:
                raise ValueError(
                    f"turn {turn.id} has no voice frames: only what was spoken can be remembered"
                )
            # A heard turn that was never written is remembered by its voice and an empty text.
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
    )


@dataclass
class RowBatch:
    """Packed rows.

    Attributes:
        ids: Turn ids, for messages.
        text: int64 [R], text id of a text row, -1 on a voice row.
        codes: int64 [R, K], codes of a voice row, -1 on a text row.
        positions: int64 [R], place in the sequence.
        cu_seqlens: int32 [S + 1]; longest: rows of the longest sequence.
        spans: Reading of the other modality, one per turn.
        code_target: int64 [R, K], the frame that follows (end codes after the last one) or IGNORE.
        text_target: int64 [R], the text id that follows or IGNORE.
        prosody_target: float32 [R, 3] of the frame that follows; prosody_known bool [R].
        duration_target: float32 [R], log frames at the row before a spoken turn's voice, NaN elsewhere.
        pace_target: float32 [R], log frames of each text id of a spoken turn that is aligned, NaN elsewhere.
        past: Turns before each sequence, for the memory.
        voice_count, frame_count, text_count, turn_count, pace_count: Targets of the whole optimizer step
            divided by its micro-batches, so that losses do not depend on how a step is split; None: those of
            this batch. Voice counts frames and end rows, frame the frames alone.
        depth_rows: Rows whose following frame trains the depth decoder; None: all with a real frame.
    """

    ids: list[str]
    text: Tensor
    codes: Tensor
    positions: Tensor
    cu_seqlens: Tensor
    longest: int
    spans: list[CrossSpan]
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
    depth_rows: Tensor | None = None

    def to(self, device: torch.device) -> RowBatch:
        """The same batch on a device."""
        moved: dict[str, Any] = {
            k: v.to(device) for k, v in vars(self).items() if isinstance(v, (Tensor, PastTurns))
        }
        return replace(self, **moved)


class RowBuilder:
    """Collects turns into sequences and sequences into a RowBatch.

    Args:
        codec: Text codec.
        num_codebooks: Codebooks per row; further ones of a turn are cut off.
        end_code: The code that fills an end row; codes of frames lie below it. 0 is csm-1b's way: a row of
            zeros ends a turn, every codebook learns its zero, and zeros are codes like others.
        vocab_size: Entries of the audio vocabulary, the bound of the codes where end_code is 0; None leaves
            them unchecked there.
        gradient_turns: As `pack_past` has it.
    """

    def __init__(
        self,
        codec: TextCodec,
        num_codebooks: int,
        end_code: int,
        vocab_size: int | None = None,
        *,
        gradient_turns: int | None = None,
    ) -> None:
        self.codec, self.num_codebooks, self.end_code = codec, num_codebooks, end_code
        self.bound = end_code or vocab_size
        self.gradient_turns = gradient_turns
        self.ids: list[str] = []
        self.past: list[list[TurnFrames]] = []
        self.spans: list[CrossSpan] = []
        self._pieces: list[dict[str, Tensor]] = []
        self._starts = [0]
        self._rows = 0

    def begin_sequence(self, past: Sequence[TurnFrames] = ()) -> None:
        """Starts a sequence whose turns may remember `past`."""
        if self._rows > self._starts[-1]:
            self._starts.append(self._rows)
        self.past.append(list(past))

    def add_spoken(
        self, turn: TurnFrames, *, length: int | None = None, train: bool = True, finished: bool = True
    ) -> None:
        """Adds a turn as text, then voice.

        Args:
            turn: With text; without frames it is only text, about to be spoken.
            length: Frames the text is spread over, its ends in proportion; None takes the turn's.
            train: Whether its voice is a target.
            finished: Whether the end row follows.

        Raises:
            ValueError: Empty text, an unknown speaker, codes of a wrong shape or range.
        """
        text = torch.tensor(self.codec.encode_turn(turn.text, turn.speaker))
        if turn.ends is not None and turn.ends.shape != text.shape:
            raise ValueError(
                f"turn {turn.id}: ends have shape {tuple(turn.ends.shape)}, its text {len(text)} ids: "
                f"expected one for each"
            )
        frames = self._frames(turn)
        first = self._rows
        count = frames.shape[0]
        self._add_text(text)
        voice = self._rows
        self._add_voice(frames, finished)
        if self._rows > voice:
            spread = max(1, length or count)
            self.spans.append(
                CrossSpan(
                    voice,
                    self._rows - voice,
                    first,
                    len(text),
                    spread,
                    voice_reads=True,
                    ends=None if turn.ends is None else turn.ends.cpu() * (spread / float(turn.ends[-1])),
                    speaker=self.codec.speaker_id(turn.speaker),
                )
            )
        if train and count:
            self._target_voice(turn, frames, len(text), finished)
        self.ids.append(turn.id)

    def add_heard(self, turn: TurnFrames, *, train: bool = True, with_text: bool = True) -> None:
        """Adds a turn as voice, then text.

        Args:
            turn: With frames.
            train: Whether its text is a target.
            with_text: False leaves the text to be written: the end row is the last.

        Raises:
            ValueError: No frames, empty text, an unknown speaker, codes of a wrong shape or range.
        """
        prefix = torch.tensor(self.codec.listen_prefix(turn.speaker))
        frames = self._frames(turn)
        if not len(frames):
            raise ValueError(f"turn {turn.id} has no voice frames: expected at least one to hear")
        self._add_text(prefix)
        first = self._rows
        self._add_voice(frames, finished=True)
        # The end row is the first that writes: it predicts the first text id.
        query = self._rows - 1
        count = 1
        if with_text:
            text = torch.tensor(self.codec.encode_text(turn.text))
            if train:
                self._pieces[-1]["text_target"][-1] = text[0]
            self._add_text(text)
            if train:
                self._pieces[-1]["text_target"][:-1] = text[1:]
            count += len(text)
        self.spans.append(CrossSpan(query, count, first, len(frames), len(frames), voice_reads=False))
        self.ids.append(turn.id)

    def build(self) -> RowBatch:
        """The batch of everything added.

        Raises:
            ValueError: Nothing was added.
        """
        if not self._rows:
            raise ValueError("no turn was added: expected at least one")
        if self._rows > self._starts[-1]:
            self._starts.append(self._rows)
        if not self.past:
            self.past.append([])
        joined = {name: torch.cat([piece[name] for piece in self._pieces]) for name in self._pieces[0]}
        cu_seqlens = torch.tensor(self._starts, dtype=torch.int32)
        lengths = cu_seqlens.diff()
        positions = torch.cat([torch.arange(int(n)) for n in lengths])
        return RowBatch(
            ids=self.ids,
            positions=positions,
            cu_seqlens=cu_seqlens,
            longest=int(lengths.max()),
            spans=self.spans,
            past=pack_past(self.past, self.codec, self.num_codebooks, self.gradient_turns),
            text=joined["text"],
            codes=joined["codes"],
            code_target=joined["code_target"],
            text_target=joined["text_target"],
            prosody_target=joined["prosody_target"],
            prosody_known=joined["prosody_known"],
            duration_target=joined["duration_target"],
            pace_target=joined["pace_target"],
        )

    def _frames(self, turn: TurnFrames) -> Tensor:
        if turn.codes.ndim != 2 or turn.codes.shape[0] < self.num_codebooks:
            raise ValueError(
                f"turn {turn.id}: codes have shape {tuple(turn.codes.shape)}, expected [K, T] with K >= "
                f"{self.num_codebooks}"
            )
        frames = turn.codes[: self.num_codebooks].T.long().cpu()
        if self.bound and frames.numel():
            low, high = int(frames.min()), int(frames.max())
            if low < 0 or high >= self.bound:
                raise ValueError(
                    f"turn {turn.id}: codes range over {low}..{high}, expected 0..{self.bound - 1}; cut "
                    f"end rows and padding off first"
                )
        return frames

    def _piece(self, rows: int) -> dict[str, Tensor]:
        piece = {
            "text": torch.full((rows,), -1),
            "codes": torch.full((rows, self.num_codebooks), -1),
            "code_target": torch.full((rows, self.num_codebooks), IGNORE),
            "text_target": torch.full((rows,), IGNORE),
            "prosody_target": torch.zeros(rows, 3),
            "prosody_known": torch.zeros(rows, dtype=torch.bool),
            "duration_target": torch.full((rows,), float("nan")),
            "pace_target": torch.full((rows,), float("nan")),
        }
        self._pieces.append(piece)
        self._rows += rows
        return piece

    def _add_text(self, ids: Tensor) -> None:
        self._piece(len(ids))["text"][:] = ids

    def _add_voice(self, frames: Tensor, finished: bool) -> None:
        piece = self._piece(len(frames) + int(finished))
        piece["codes"][: len(frames)] = frames
        if finished:
            piece["codes"][-1] = self.end_code

    def _target_voice(self, turn: TurnFrames, frames: Tensor, text_rows: int, finished: bool) -> None:
        """Every row before a frame predicts it: the last text row the first, the last frame the end row."""
        text, voice = self._pieces[-2], self._pieces[-1]
        count = len(frames)
        text["code_target"][-1] = frames[0]
        voice["code_target"][: count - 1] = frames[1:]
        if finished:
            # A row of zeros is told from a frame by all its codes, an end code by the first alone.
            voice["code_target"][count - 1, : 1 if self.end_code else None] = self.end_code
            text["duration_target"][-1] = float(torch.tensor(float(count)).log())
        if turn.ends is not None and finished:
            # The first id, the turn's begin, lasts no time.
            text["pace_target"][1:] = turn.ends.cpu().diff().clamp_min(SHORTEST).log()
        if turn.prosody is not None:
            text["prosody_target"][-1], text["prosody_known"][-1] = turn.prosody[0], True
            voice["prosody_target"][: count - 1] = turn.prosody[1:count]
            voice["prosody_known"][: count - 1] = True
