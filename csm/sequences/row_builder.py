"""Turns into rows: which row holds what and predicts what."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from csm.sequences.packed_batch import IGNORE, RowBatch, TextSpan, VoiceSpan
from csm.sequences.past_turns import pack_past
from csm.sequences.turns import TurnFrames
from csm.spelling import spell
from csm.text import TextCodec

# Frames: the least duration of a text id that is a target; an aligner may give an id no time at all.
SHORTEST = 0.1


class RowBuilder:
    """Collects turns into sequences and sequences into a RowBatch.

    Args:
        codec: Text codec.
        num_codebooks: Number of codebooks per row; further ones of a turn are cut off.
        end_code: Code that fills an end row; codes of frames lie below it. With 0, as in csm-1b, a row of
            zeros ends a turn, every codebook is trained on its zero, and frames may hold zeros too.
        vocab_size: Entries of the audio vocabulary, the bound of the codes if end_code is 0; None leaves
            them unchecked there.
        gradient_turns: Number of newest past turns that gradients pass through; None: all.
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
        self.voice_spans: list[VoiceSpan] = []
        self.text_spans: list[TextSpan] = []
        self._pieces: list[dict[str, Tensor]] = []
        self._starts = [0]
        self._rows = 0

    def begin_sequence(self, past: Sequence[TurnFrames] = ()) -> None:
        """Starts a sequence whose memory holds the turns of `past`, oldest first."""
        if self._rows > self._starts[-1]:
            self._starts.append(self._rows)
        self.past.append(list(past))

    def add_spoken(
        self, turn: TurnFrames, *, length: int | None = None, train: bool = True, finished: bool = True
    ) -> None:
        """Adds a turn as text, then voice.

        Args:
            turn: Turn with text; without frames, a turn about to be spoken.
            length: Frames that the text is stretched over, its ends in proportion; None: the turn's frames.
            train: Whether its voice is a target.
            finished: Whether the end row follows.

        Raises:
            ValueError: The text is empty, the speaker is unknown, or the codes have a wrong shape or range.
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
            stretched = max(1, length or count)
            self.voice_spans.append(
                VoiceSpan(
                    voice,
                    self._rows - voice,
                    first,
                    len(text),
                    stretched,
                    ends=None if turn.ends is None else turn.ends.cpu() * (stretched / float(turn.ends[-1])),
                    speaker=self.codec.speaker_id(turn.speaker),
                )
            )
        if train and count:
            self._target_voice(turn, frames, len(text), finished)
        self.ids.append(turn.id)

    def add_transcribed(self, turn: TurnFrames, *, train: bool = True, with_text: bool = True) -> None:
        """Adds a turn as voice, then text.

        Args:
            turn: Turn with frames.
            train: Whether its text is a target.
            with_text: Whether the text follows; without it the end row is the last and predicts the text.

        Raises:
            ValueError: There are no frames, the text is empty, the speaker is unknown, or the codes have a
                wrong shape or range.
        """
        prefix = torch.tensor(self.codec.listen_prefix(turn.speaker))
        frames = self._frames(turn)
        if not len(frames):
            raise ValueError(f"turn {turn.id} has no voice frames: expected at least one to transcribe")
        self._add_text(prefix)
        first = self._rows
        self._add_voice(frames, finished=True)
        # The end row predicts the first text id.
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
        letters = tuple(spell(turn.text)) if train and with_text else ()
        self.text_spans.append(TextSpan(query, count, first, len(frames), letters))
        self.ids.append(turn.id)

    def build(self) -> RowBatch:
        """Returns the batch of everything added.

        Raises:
            ValueError: No turn was added.
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
            voice_spans=self.voice_spans,
            text_spans=self.text_spans,
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
        """Gives every row before a frame that frame as its target: the last text row the first frame."""
        text, voice = self._pieces[-2], self._pieces[-1]
        count = len(frames)
        text["code_target"][-1] = frames[0]
        voice["code_target"][: count - 1] = frames[1:]
        if finished:
            # A row of zeros differs from a frame only in all codes together, an end code in the first alone.
            voice["code_target"][count - 1, : 1 if self.end_code else None] = self.end_code
            text["duration_target"][-1] = float(torch.tensor(float(count)).log())
        if turn.ends is not None and finished:
            # The first id marks the turn's begin and lasts no time.
            text["pace_target"][1:] = turn.ends.cpu().diff().clamp_min(SHORTEST).log()
        if turn.prosody is not None:
            text["prosody_target"][-1], text["prosody_known"][-1] = turn.prosody[0], True
            voice["prosody_target"][: count - 1] = turn.prosody[1:count]
            voice["prosody_known"][: count - 1] = True
